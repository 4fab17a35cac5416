/** Starts the Drive page. */

import './style/drive.css';
import { DriveApp } from './app';

const root = document.getElementById('drive');
if (root !== null) {
  new DriveApp(root).start();
}

// A client that knows nothing of minicolab: @jupyterlab/services, the library with which JupyterLab and VS Code's Jupyter
// extension speak to an existing Jupyter server. Arguments: module folder, address with ?token=, code.
// Prints one JSON line: the server's kernel names, what the code printed, whether its picture arrived.
const path = require('path');

async function main(modules, address, code) {
  const { KernelManager, KernelSpecManager, ServerConnection, SessionManager } = require(
    path.join(modules, '@jupyterlab', 'services')
  );
  const url = new URL(address);
  const token = url.searchParams.get('token');
  const baseUrl = url.origin + url.pathname;
  const settings = ServerConnection.makeSettings({
    baseUrl,
    wsUrl: baseUrl.replace(/^http/, 'ws'),
    token,
    appendToken: true,
    WebSocket: require(path.join(modules, 'ws'))
  });
  const specs = new KernelSpecManager({ serverSettings: settings });
  await specs.ready;
  const kernels = new KernelManager({ serverSettings: settings });
  const sessions = new SessionManager({ serverSettings: settings, kernelManager: kernels });
  await sessions.ready;
  const session = await sessions.startNew({
    name: 'a.ipynb',
    path: 'a.ipynb',
    type: 'notebook',
    kernel: { name: specs.specs.default }
  });
  let text = '';
  let picture = false;
  const future = session.kernel.requestExecute({ code });
  future.onIOPub = message => {
    if (message.header.msg_type === 'stream') {
      text += message.content.text;
    }
    picture = picture || 'image/png' in (message.content.data ?? {});
  };
  const reply = await future.done;
  console.log(
    JSON.stringify({ specs: Object.keys(specs.specs.kernelspecs), status: reply.content.status, text, picture })
  );
  process.exit(0);
}

main(...process.argv.slice(2)).catch(error => {
  console.error(error);
  process.exit(1);
});

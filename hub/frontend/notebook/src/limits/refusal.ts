// A refusal to start a runtime, as the dialog says it: the service's sentence, its numbers, and the next best thing to do.
import { hours, when } from './words';

/** What control says when it refuses. */
export interface IRefusal {
  code: string;
  message: string;
  limit?: number;
  used?: number;
  unit?: string | null;
  resets_at?: string | null;
  offer?: IOffer | null;
}

export interface IOffer {
  kind: 'accelerator' | 'stop' | 'wait';
  accelerator?: string;
  runtime_id?: string;
  message: string;
}

/** What the dialog shows. */
export interface IExplained {
  title: string;
  sentence: string;
  facts: [string, string][];
  hint: string;
  action: string;
  usage: boolean;
}

const TITLES: Record<string, string> = {
  too_many_runtimes: 'Too many sessions',
  budget_used_up: 'Usage limit reached',
  not_eligible: 'Not available to you',
  accelerator_unavailable: 'Cannot connect to GPU backend'
};

function number(value: number, unit: string | null | undefined): string {
  return unit === 'accelerator_hours' || unit === 'cpu_hours' ? hours(value) : String(value);
}

function action(offer: IOffer | null | undefined): string {
  switch (offer?.kind) {
    case 'accelerator':
      return !offer.accelerator || offer.accelerator === 'NONE' ? 'Connect without GPU' : `Connect with ${offer.accelerator}`;
    case 'stop':
      return 'Manage sessions';
    default:
      return '';
  }
}

/** Return the dialog's words. */
export function explain(refusal: IRefusal, now: Date, locale?: string): IExplained {
  const { limit, used, unit, resets_at: resets, offer } = refusal;
  const facts: [string, string][] = [];
  if (limit && used !== undefined && refusal.code !== 'not_eligible') {
    facts.push(['Used', `${number(used, unit)} of ${number(limit, unit)}`]);
  }
  if (resets) {
    facts.push(['Resets at', when(resets, now, locale)]);
  }
  return {
    title: TITLES[refusal.code] ?? 'No runtime',
    sentence: refusal.message,
    facts,
    hint: offer?.message ?? '',
    action: action(offer),
    usage: refusal.code in TITLES && refusal.code !== 'accelerator_unavailable'
  };
}

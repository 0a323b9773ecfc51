// Runs a program in a Paddock sandbox, and stops sandboxes, with nothing but Temporal's own client.
//
//   npm start -- run NAME POLICY PROGRAM [ARGUMENT...]
//   npm start -- start NAME
//   npm start -- stop NAME

import { setTimeout as sleep } from 'node:timers/promises';
import {
  ApplicationFailure,
  Client,
  Connection,
  WorkflowFailedError,
  WorkflowNotFoundError,
  type WorkflowHandle,
} from '@temporalio/client';
import { type Report, type Spec, type Status, show } from './contract.js';

const USAGE = 'usage: run NAME POLICY PROGRAM [ARGUMENT...] | start NAME | stop NAME';

/** A failure in words, for whoever reads the terminal. */
class Failed extends Error {}

async function main([verb, name, ...rest]: string[]): Promise<void> {
  if (verb === undefined || name === undefined) throw new Failed(USAGE);
  const address = process.env.TEMPORAL_ADDRESS ?? '127.0.0.1:7233';
  const connection = await Connection.connect({ address }).catch((error: unknown) => {
    throw new Failed(`no Temporal at ${address}: ${words(error)}`);
  });
  const client = new Client({ connection });
  const id = `sandbox/${name}`;
  try {
    if (verb === 'run') {
      const [policy, ...argv] = rest;
      await run(client, id, { policy, task: { argv }, lifetime_s: 600 });
    } else if (verb === 'start') {
      await start(client, id, { lifetime_s: 600 });
    } else if (verb === 'stop') {
      await stop(client, id);
    } else {
      throw new Failed(USAGE);
    }
  } finally {
    await connection.close();
  }
}

/** Starts a sandbox with a task in its spec, follows it to its end, and prints how it ended and what is gone. */
async function run(client: Client, id: string, spec: Spec): Promise<void> {
  const handle = await start(client, id, spec);
  const ended: Promise<Report> = handle.result();
  let over = false;
  const mark = (): void => void (over = true);
  ended.then(mark, mark);

  for (let seen = ''; !over; await sleep(300)) {
    const now = await handle.query<Status>('status').catch(() => undefined); // it may be ending just now
    if (now !== undefined && now.state !== seen) {
      seen = now.state;
      console.log(`state: ${now.state} host: ${now.host}`);
    }
  }
  try {
    show(await ended);
  } catch (error) {
    throw failure(error);
  }
}

/** Starts a sandbox, or finds the one of this id that runs: asking twice is safe. */
async function start(client: Client, id: string, spec: Spec): Promise<WorkflowHandle> {
  const handle = await client.workflow.start('Sandbox', {
    workflowId: id,
    taskQueue: 'control',
    workflowIdConflictPolicy: 'USE_EXISTING',
    args: [spec],
  });
  console.log(`started: ${handle.workflowId}`);
  return handle;
}

/** Stops a sandbox and waits for its receipts; one that has ended answers with its report too. */
async function stop(client: Client, id: string): Promise<void> {
  const handle = client.workflow.getHandle(id);
  try {
    const args: [string] = ['stopped by the TypeScript example'];
    show(await handle.executeUpdate<Report, [string]>('stop', { args }));
  } catch (error) {
    if (!(error instanceof WorkflowNotFoundError)) throw failure(error);
    try {
      show((await handle.result()) as Report); // no such sandbox, or it has ended: then its result is the report
    } catch (late) {
      throw failure(late);
    }
  }
}

/** Why a sandbox failed: its report is in the details of the workflow's failure. */
function failure(error: unknown): unknown {
  const cause = error instanceof WorkflowFailedError ? error.cause : error;
  if (!(cause instanceof ApplicationFailure)) return error;
  const report = cause.details?.[0] as Report | undefined;
  if (report?.outcome === undefined) return new Failed(cause.message); // a spec that cannot be: the words name the field
  show(report);
  return new Failed(`${report.outcome}: ${cause.message}`);
}

function words(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  console.error(`paddock: ${words(error)}`);
  process.exitCode = 1;
}

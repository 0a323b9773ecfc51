// The part of Paddock's contract v1 that this program needs; every field of a spec may be left out.

/** Argument of the workflow `Sandbox`. */
export interface Spec {
  api_version?: 'v1';
  policy?: string;
  task?: { argv: string[] };
  lifetime_s?: number;
}

/** Answer of the query `status`. */
export interface Status {
  state: string;
  host: string;
}

/** How it was checked that one resource is gone. */
export interface Receipt {
  resource: string;
  id: string;
  gone: string;
  checked_by: string;
}

/** What `Sandbox` answers when all of it is gone. */
export interface Report {
  sandbox_id: string;
  outcome: string;
  reason: string;
  task: { exit: number | null; signal: number | null; output_bytes: number } | null;
  receipts: Receipt[];
}

export function show(report: Report): void {
  console.log(`outcome: ${report.outcome} ${report.reason}`);
  if (report.task !== null && report.task.exit !== null) {
    console.log(`exit: ${report.task.exit}, ${report.task.output_bytes} bytes of output`);
  }
  for (const { resource, id, gone, checked_by } of report.receipts) {
    console.log(`receipt: ${resource} ${id} ${gone}: ${checked_by}`);
  }
}

/** The answer of `GET sealbook/api/kernels/ID/attestation`: everything that the panel shows. */
export interface IFacts {
  readonly trust: ITrustFacts;
  readonly identity: IIdentity | null;
  readonly platform: IPlatform | null;
  /** From the quote to the root; empty where there is no evidence. */
  readonly chain: readonly ILink[];
  /** Why there is no chain, in one sentence; empty where there is one. */
  readonly chain_note?: string;
  readonly channel: IChannel | null;
  readonly keys: readonly IKeyRelease[];
  readonly artifacts: readonly IArtifact[];
  /** Entries of the audit log with a larger number than was asked for. */
  readonly audit: readonly IAuditEntry[];
  /** The number of the last entry. */
  readonly last: number;
  readonly cluster: ICluster | null;
}

/** As the indicator's. */
export interface ITrustFacts {
  readonly state: string;
  readonly stale: { readonly reason: string; readonly remedy: string } | null;
  readonly summary: string;
  readonly kernel: string;
  readonly evidence: string;
  readonly verified_at: string | null;
  readonly fresh_until: string | null;
  readonly refusals: readonly { readonly check: string; readonly reason: string; readonly remedy: string }[];
}

/** Which code runs, and which entry of which policy admits it. */
export interface IIdentity {
  readonly mrenclave: string;
  readonly mrsigner: string;
  readonly isv_prod_id: number;
  readonly isv_svn: number;
  readonly entry: string;
  readonly policy: string;
  readonly policy_digest: string;
  readonly root: string;
  readonly root_fingerprint: string;
}

/** On what it runs. */
export interface IPlatform {
  readonly tcb_status: string;
  readonly meaning: string;
  readonly advisories: readonly { readonly id: string; readonly meaning: string }[];
  readonly fmspc: string;
  readonly tcb_date: string | null;
  readonly collateral_expires_at: string | null;
}

/** One link of the chain of trust. */
export interface ILink {
  readonly name: string;
  readonly title: string;
  readonly facts: readonly (readonly [string, string])[];
  readonly checks: readonly ICheck[];
  /** Whether it joins the chain from the side, as collateral does. */
  readonly side: boolean;
}

/** One check on a link: passed, failed, or (null) not reached. */
export interface ICheck {
  readonly name: string;
  readonly title: string;
  readonly passed: boolean | null;
  readonly reason: string;
}

/** What the quote binds. */
export interface IChannel {
  readonly role: string;
  readonly audience: string;
  readonly bound: boolean;
  readonly report_data: string;
  readonly claims: readonly { readonly name: string; readonly value: string; readonly meaning: string }[];
}

/** A key that was asked for. */
export interface IKeyRelease {
  readonly time: string;
  readonly key: string;
  readonly version: number | null;
  readonly purpose: string;
  readonly decision: string;
  readonly why: string;
}

/** A sealed artifact that was read or written. */
export interface IArtifact {
  readonly time: string;
  readonly action: string;
  readonly path: string;
  readonly key: string;
  readonly size: number | null;
}

/** One entry of the audit log. */
export interface IAuditEntry {
  readonly seq: number;
  readonly time: string;
  readonly event: string;
  readonly decision: string;
  readonly [fact: string]: unknown;
}

/** Where the code of the notebook runs. */
export interface ICluster {
  /** "local", "cluster", or "unknown" where the kernel reports a place that this user does not have. */
  readonly where: string;
  /** Whether the kernel said that it started Spark. */
  readonly started: boolean;
  readonly name: string;
  readonly master: string;
  readonly nodes: readonly INode[];
  readonly note: string;
  /** The clusters that this user has. */
  readonly choices: readonly { readonly name: string; readonly master: string }[];
}

/** A node of a cluster and its attestation. */
export interface INode {
  readonly role: string;
  readonly address: string;
  readonly label: string;
  readonly measurement: string;
  readonly certificate_until: string;
}

/** What a kernel itself says of the Spark jobs of the cell that it runs. */
export interface IProgress {
  readonly where: string;
  readonly jobs: number;
  readonly active: number;
  readonly stages: number;
  readonly tasks: number;
  readonly done: number;
  readonly running: number;
  readonly ended: boolean;
}

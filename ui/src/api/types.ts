// Written by scripts/ui_types.py from the API's OpenAPI document: change shapes in Python.

/** How a budget stands for what is counted apart, `of`; with its limits, where they are known. */
export interface AccountRow {
  name: string;
  of: Record<string, string>;
  spent: AmountRow;
  reserved: AmountRow;
  max_llm_calls: number | null;
  max_tokens: number | null;
  max_cost_usd: string | null;
}

/** What calls of models use; `cost_usd` is a decimal. */
export interface AmountRow {
  calls: number;
  tokens: number;
  cost_usd: string;
}

/** What somebody says to a request, as it was *shown*. */
export interface Answer {
  run: string;
  path: string;
  shown: string;
  /** approve, reject or resolve */
  answer: "approve" | "reject" | "resolve";
  reason?: string;
  /** of what is in doubt: done, retry or fail */
  how?: "" | "done" | "retry" | "fail";
  /** what a call gave that is done, as JSON */
  output?: string;
}

/** A way from one box to another. */
export interface Arrow {
  id: string;
  source: string;
  target: string;
  label: string;
  way: "next" | "branch" | "unless" | "catch" | "skip";
}

/**
 * Of the runs that took an arrow: how many, their share of all, the time within which 95 of 100
 * of them ended, and what they have cost in the mean; null where that is not known.
 */
export interface ArrowTraffic {
  id: string;
  runs: number;
  share: number;
  p95_ms: number | null;
  cost_usd: string | null;
}

/** What a run waits for, in a list. */
export interface Asked {
  path: string;
  kind: string;
  role?: string;
  event?: string;
  deadline_ns?: number;
}

/**
 * What runs ask. `by` is who decides here, null where nobody does; `now` is the server's
 * time.
 */
export interface AskedList {
  asked: Asking[];
  damaged: string[];
  by: string | null;
  now: number;
}

/**
 * What a run asks at a place. Times are milliseconds since the epoch; without `whole` the
 * facts are too long for a page. `needed` people approve it, and `approved` have.
 */
export interface Asking {
  run: string;
  program: string;
  path: string;
  kind: "approval" | "in_doubt" | "effect";
  role: string | null;
  tool: string | null;
  facts: Fact[];
  whole: boolean;
  shown: string;
  since: number;
  deadline: number | null;
  needed: number;
  approved: string[];
}

/** An attempt that failed. */
export interface AttemptView {
  error: ErrorView;
  answer?: string;
  tokens?: number;
  cost?: string | null;
  start: number;
  end: number;
}

/** What is wrong with the log; nothing if it is as it was written. */
export interface AuditFaults {
  faults: string[];
}

/** Entries, newest first; `before` is what the next page is asked for with. */
export interface AuditList {
  entries: AuditRow[];
  before: number | null;
}

/** An entry of the audit log. */
export interface AuditRow {
  number: number;
  at: number;
  project: string;
  actor: string;
  key_id: string | null;
  ip: string;
  action: string;
  target: string;
  detail: Record<string, unknown>;
  request_id: string;
  hash: string;
}

/** A call that was begun and has no outcome yet; `process` is that which began it. */
export interface Begun {
  path: string;
  began_ns: number;
  process: Record<string, unknown> | null;
}

/**
 * A step, or an end of the run or of a frame in it (`$end`, `$fail`).
 *
 * `parent` is the box that it stands in, "" at the top, and `lane` the frame of that box,
 * where it has several. `scope` is the box of the call whose names it reads and writes.
 * `written` is the step as canonical JSON, without the steps in it.
 */
export interface Box {
  id: string;
  step: string;
  type: string;
  look: "step" | "model" | "tool" | "decision" | "pause" | "fork" | "stop" | "end" | "fail";
  line: string;
  parent: string;
  lane: string;
  scope: string;
  when: string | null;
  test: string | null;
  lanes: string[];
  bound: number | null;
  reads: Reading[];
  writes: string[];
  written: string;
}

/**
 * Of the runs that came to a step: how many, how often, the time within which 95 of 100 of its
 * calls ended, and what all its calls have cost; null where a price is missing.
 */
export interface BoxTraffic {
  id: string;
  runs: number;
  times: number;
  p95_ms: number | null;
  cost_usd: string | null;
}

/** A run in a list. `driven` says whether the process that runs it is alive. */
export interface Brief {
  run_id: string;
  program: string;
  program_digest: string;
  status: string;
  waiting: Record<string, unknown>[];
  driven: boolean;
  created_ns: number;
  finished_ns: number | null;
  due_ns: number | null;
  steps: number;
  tokens: number;
  cost_usd: string | null;
  error: string | null;
  parent: string | null;
  project: string;
  submitter: string | null;
  labels: Record<string, string>;
  erased: boolean;
}

/** Runs, newest first; `after` is what the next page is asked for with. */
export interface BriefList {
  runs: Brief[];
  after: string | null;
  damaged: string[];
}

/**
 * A budget that runs share, as the workers `hosts` have it; `shared` says that it counts
 * runs of other projects too.
 */
export interface BudgetRow {
  name: string;
  per: string[];
  program: string | null;
  max_llm_calls: number | null;
  max_tokens: number | null;
  max_cost_usd: string | null;
  shared: boolean;
  hosts: string[];
}

/**
 * Budgets of a project, their accounts, and what met one of the newest runs that failed, of
 * which so many were `looked` at.
 */
export interface Budgets {
  budgets: BudgetRow[];
  accounts: AccountRow[];
  met: MetRow[];
  looked: number;
}

/** What came of cancelling a run: `fault` says why it was not. */
export interface Cancelled {
  id: string;
  recorded: boolean;
  fault: string | null;
}

/** What came of cancelling several runs, in their order. */
export interface CancelledList {
  runs: Cancelled[];
}

/** The whole graph, as JSON. `inputs` are the names that a run is given. */
export interface ChartData {
  name: string;
  digest: string;
  inputs: string[];
  entry: string;
  boxes: Box[];
  arrows: Arrow[];
}

/**
 * What is to be said of a program: its faults, proofs, worst case and flows, and its graph;
 * `host` names the worker that it was held against, `policy` is the version of the project's.
 * `bound` is the worst case in words.
 */
export interface Checked {
  host: string | null;
  name: string | null;
  policy: number | null;
  bound: string | null;
  counterexamples: Counterexample[];
  diagnostics: DiagnosticView[];
  report: ReportView | null;
  chart: ChartData | null;
}

/** Two runs and what differs, as `replay.diff` has it; each value is canonical JSON. */
export interface Comparison {
  a: RunView;
  b: RunView;
  same: boolean;
  divergence: string | null;
  whole: Record<string, [string, string]>;
  steps: StepDifference[];
}

/**
 * What some model calls consumed; `cost_usd` is a decimal, and `what_if_usd` what they would
 * have cost by the prices that were given.
 */
export interface CostRow {
  of: Record<string, string>;
  calls: number;
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
  cost_usd: string;
  unpriced: number;
  what_if_usd?: string;
  what_if_unpriced?: number;
}

/**
 * Costs by what they are summed by, of so many `runs`, the newest, of which the first began
 * `since` then; `whole` says that there are no others. `versions` has the numbers of a
 * program's versions by its digest, `tables` those tables by which the newest runs were priced.
 */
export interface Costs {
  costs: CostRow[];
  runs: number;
  since: number | null;
  whole: boolean;
  versions: Record<string, number[]>;
  tables: string[];
  damaged: string[];
}

/** A run that was executed and breaks the statement of a proof, by its number in the report. */
export interface Counterexample {
  proof: number;
  run: RunView;
}

/** A run and its version; `run` is null where it is as it was seen. */
export interface Current {
  version: string;
  run: RunView | null;
}

/** How a run stands, and its version; `run` is null where it is as it was seen. */
export interface CurrentFacts {
  version: string;
  run: Facts | null;
}

/** How many runs began on a day, by how they stand now; `day` is its beginning (UTC). */
export interface Day {
  day: number;
  statuses: Record<string, number>;
}

/** The last days, the oldest first, those without runs too. */
export interface DayList {
  days: Day[];
}

/** That an answer is recorded, and how many more people have to approve before it counts. */
export interface Decided {
  recorded: boolean;
  missing: number;
}

/** A fault of a program, with its place in the text that was put. */
export interface DiagnosticView {
  code: string;
  severity: "error" | "warning" | "hint";
  loc: (string | number)[];
  place: string;
  message: string;
  hint?: string;
  file?: string;
  line?: number;
  column?: number;
}

/** Why something failed. */
export interface ErrorView {
  kind: string;
  type: string;
  message: string;
}

/** A part of what is asked. `exact` is the same in ASCII, where letters may be mistaken. */
export interface Fact {
  name: string;
  text: string;
  exact: string | null;
}

/**
 * A run with all that is known of how it stands. `trace` is the JSON form of its trace, with
 * the records alone where its values were erased.
 */
export interface Facts {
  run_id: string;
  program: string;
  program_digest: string;
  status: string;
  waiting: Record<string, unknown>[];
  driven: boolean;
  created_ns: number;
  finished_ns: number | null;
  due_ns: number | null;
  steps: number;
  tokens: number;
  cost_usd: string | null;
  error: string | null;
  parent: string | null;
  project: string;
  submitter: string | null;
  labels: Record<string, string>;
  erased: boolean;
  owner: string | null;
  document: Record<string, unknown>;
  inbox: Said[];
  late: Late[];
  begun: Begun[];
  trace: Record<string, unknown>;
  seal: string | null;
}

/**
 * A call that a fork makes first; with `stops` it waits for a person. `called` is the tool
 * or the model.
 */
export interface FirstCall {
  path: string;
  step: string;
  type: string;
  called: string | null;
  effect: string | null;
  stops: boolean;
}

/**
 * A run once more, with a change. *edit* has what changes: `inputs`, by name; of a step, by
 * its path, `output`, or by its id any field as the program has it. The output of an approval is
 * none of them: it is decided in the inbox. With *version* the fork runs that version of the
 * program.
 */
export interface Fork {
  /** the step from which on nothing is taken */
  at?: string | null;
  edit?: Record<string, Record<string, unknown>>;
  version?: number | null;
  /** make calls that have an effect, too, and ask for each approval anew */
  effects?: boolean;
}

/** A fork that was made, or was there already; `taken` is how many outcomes it takes. */
export interface ForkMade {
  id: string;
  created: boolean;
  taken: number;
}

/** A fork, and what is said of its run. */
export interface ForkNamed {
  /** the step from which on nothing is taken */
  at?: string | null;
  edit?: Record<string, Record<string, unknown>>;
  version?: number | null;
  /** make calls that have an effect, too, and ask for each approval anew */
  effects?: boolean;
  run_id?: string | null;
  labels?: Record<string, string> | null;
}

/** A run of a tree of forks; `changed` names what it changes of the run before. */
export interface ForkNode {
  id: string;
  depth: number;
  parent: string | null;
  status: string;
  program: string;
  created: number;
  steps: number;
  cost: string | null;
  submitter: string | null;
  at: string | null;
  changed: string[];
}

/** What a fork would do: the steps whose outcome it takes, by path, and its first calls. */
export interface ForkPreview {
  taken: string[];
  calls: FirstCall[];
}

/**
 * A run with its forks and theirs, each behind its origin; not `whole` where there are
 * more.
 */
export interface ForkTree {
  runs: ForkNode[];
  whole: boolean;
}

/** Runs in which the text was found, newest first, of so many that were `searched`; as `RunList`. */
export interface FoundList {
  runs: FoundRow[];
  searched: number;
  after: string | null;
  damaged: string[];
  now: number;
}

/** A run in which the text was found, with the first places of it. */
export interface FoundRow {
  id: string;
  program: string;
  program_digest: string;
  status: string;
  driven: boolean;
  waiting: Asked[];
  created: number;
  finished: number | null;
  due: number | null;
  steps: number;
  tokens: number;
  cost: string | null;
  error: string | null;
  parent: string | null;
  project: string | null;
  submitter: string | null;
  labels: Record<string, string>;
  erased: boolean;
  hits: Hit[];
}

/**
 * Where the text was found: in a field of the step at `path`, or of the run; and as it stands
 * there, with a little of what is before and after it.
 */
export interface Hit {
  path: string | null;
  field: "input" | "request" | "answer" | "output" | "error";
  before: string;
  found: string;
  after: string;
}

/** A worker as it announced itself; `fault` says why that cannot be read. */
export interface Host {
  name: string;
  alive: boolean;
  version: string;
  since: number;
  seen: number;
  concurrency: number;
  policy: boolean;
  tools: HostTool[];
  models: string[];
  fault: string | null;
}

/** Workers, and what none of them can drive. */
export interface HostList {
  hosts: Host[];
  stranded: Stranded[];
}

/** A tool of a worker; `arguments` is a JSON Schema. */
export interface HostTool {
  name: string;
  effect: string;
  description: string;
  arguments: Record<string, unknown>;
}

/** Keys of a project. */
export interface KeyList {
  keys: KeyRow[];
}

/** An API key, without its secret. */
export interface KeyRow {
  id: string;
  name: string;
  maker: string;
  role: string;
  created: number;
  expires: number | null;
  used: number | null;
  revoked: number | null;
}

/**
 * A key for a program that calls the API: it may do what *role* may, and no more than who makes
 * it.
 */
export interface KeyWanted {
  name: string;
  role: "admin" | "developer" | "operator" | "viewer";
  /** until it expires; null: never */
  days?: number | null;
}

/** What a call gave whose run had another owner by then, so that the run says something else. */
export interface Late {
  path: string;
  created_ns: number;
  gave: unknown;
}

/** Where one logs out at the provider too, for who logged in there. */
export interface LoggedOut {
  next: string | null;
}

/** Who logs in. */
export interface Login {
  name: string;
  password: string;
}

/** Who is logged in. */
export interface Me {
  name: string;
  owner: boolean;
  key: string | null;
  projects: Membership[];
}

/** What somebody may do in a project; *approves* are roles that approvals ask for, `*` all. */
export interface Member {
  role: "admin" | "developer" | "operator" | "viewer";
  approves?: string[];
}

/** Members of a project. */
export interface MemberList {
  members: MemberRow[];
}

/** A member of a project. */
export interface MemberRow {
  name: string;
  role: string;
  approves: string[];
}

/** A project of somebody, and what they may do in it. */
export interface Membership {
  project: string;
  role: string | null;
  permissions: string[];
}

/** A program of which runs met a budget, with the newest of these. */
export interface MetRow {
  program: string;
  runs: number;
  newest: string;
}

/** A key that was made; `key` is shown this once. */
export interface NewKey {
  id: string;
  key: string;
}

/** A password in place of another. */
export interface NewPassword {
  old: string;
  new: string;
}

/** A project, by its name. */
export interface NewProject {
  name: string;
}

/**
 * *four_eyes*: a run is decided by another than who started it. *approvers*: by the role that an
 * approval asks for, how many people approve, where that is more than one. What is left out stays.
 */
export interface NewSettings {
  four_eyes?: boolean | null;
  approvers?: Record<string, number> | null;
}

/** A person who logs in with a password. */
export interface NewUser {
  name: string;
  password: string;
  owner?: boolean;
}

/** A filter, as the field of the list has it. */
export interface NewView {
  query: string;
}

/** Other prices: dollars per million tokens, by the names of models. */
export interface Otherwise {
  prices: Record<string, Record<string, string> | string[]>;
}

/**
 * What the last runs of a version of a program did, on its graph; `since` is when the first
 * of them began.
 */
export interface PathMap {
  runs: number;
  arrows: ArrowTraffic[];
  boxes: BoxTraffic[];
  never: string[];
  version: number;
  since: number | null;
  chart: ChartData;
}

/** The versions of a project's policy, newest first. */
export interface PolicyList {
  policies: PolicyRow[];
}

/** A version of a project's policy. */
export interface PolicyRow {
  version: number;
  digest: string;
  put_by: string;
  put: number;
}

/** A version of a project's policy, as it was put. */
export interface PolicyVersion {
  version: number;
  digest: string;
  put_by: string;
  put: number;
  source: string;
}

export interface Problem {
  /** what kind of problem it is, as a URN */
  type: string;
  title: string;
  status: number;
  /** what is the matter here, and what to do */
  detail: string;
  /** by which the server's log knows it */
  request_id: string;
  /** the faults of a program, each with its place */
  diagnostics?: DiagnosticView[];
}

/**
 * What differs between two versions of a program, as text and as fields: of the whole, and of
 * each step, whose `path` is its id behind those of the calls that it stands in. `a` and `b`
 * are their graphs, null of one that has none without the programs that it calls.
 */
export interface ProgramDifference {
  same: boolean;
  text: string;
  whole: Record<string, [string, string]>;
  steps: StepDifference[];
  a: ChartData | null;
  b: ChartData | null;
}

/** Programs of a project. */
export interface ProgramList {
  programs: ProgramRow[];
}

/** The newest version of a program. */
export interface ProgramRow {
  name: string;
  version: number;
  digest: string;
  put_by: string;
  put: number;
}

/** A version of a program, as it was put. */
export interface ProgramVersion {
  name: string;
  version: number;
  digest: string;
  put_by: string;
  put: number;
  source: string;
  inputs: Record<string, unknown>;
  versions: number[];
}

/** All projects of the instance. */
export interface ProjectList {
  projects: ProjectRow[];
}

/** A project. */
export interface ProjectRow {
  name: string;
  created: number;
}

/** A statement of a policy, and what is known of it. */
export interface ProofView {
  kind: string;
  tool: string;
  statement: string;
  status: "proved" | "refuted" | "unproved";
  place?: string;
  path?: Record<string, unknown>[];
  run?: Record<string, unknown>;
  reason?: string;
  note?: string;
}

/** A program as text, YAML or JSON. */
export interface Put {
  source: string;
}

/** A policy as text, YAML or JSON. */
export interface PutPolicy {
  source: string;
}

/** A name that a step reads: as it is written, what it belongs to, and in which field. */
export interface Reading {
  text: string;
  name: string;
  field: string;
}

/** Whether what was said is recorded now; False where it was before. */
export interface Recorded {
  recorded: boolean;
}

/** What the verifier found, as `nano-vm verify --json` has it. */
export interface ReportView {
  ok: boolean;
  program: string;
  digest: string;
  proofs_digest: string;
  diagnostics: DiagnosticView[];
  proofs: ProofView[];
  ceiling: Record<string, unknown> | null;
  flows: Record<string, unknown>[];
  released: Record<string, unknown>[];
}

/**
 * Runs, newest first; `after` is what the next page is asked for with, and `now` the
 * server's time, in milliseconds since the epoch.
 */
export interface RunList {
  runs: RunRow[];
  after: string | null;
  damaged: string[];
  now: number;
}

/**
 * A run in a list. `status` is as a store has it; `driven` says whether the process that
 * runs it is alive, and `finished` is null for one that has not ended. Times are milliseconds
 * since the epoch.
 */
export interface RunRow {
  id: string;
  program: string;
  program_digest: string;
  status: string;
  driven: boolean;
  waiting: Asked[];
  created: number;
  finished: number | null;
  due: number | null;
  steps: number;
  tokens: number;
  cost: string | null;
  error: string | null;
  parent: string | null;
  project: string | null;
  submitter: string | null;
  labels: Record<string, string>;
  erased: boolean;
}

/**
 * A run. `lost` are boxes that no arrow was found to: none, for a run of this program.
 * `current` are the boxes that a run under way has reached: of a call without an effect nothing
 * is recorded before its end.
 */
export interface RunView {
  format: number;
  id: string;
  program: string;
  program_digest: string;
  status: string;
  started: string;
  duration: number | null;
  inputs: Record<string, string>;
  output?: string;
  error: string | null;
  error_kind: string | null;
  tokens: number;
  cost: string | null;
  digest: string | null;
  seal: string | null;
  signed: boolean;
  erased: boolean;
  content: boolean;
  parent: string | null;
  project: string | null;
  submitter: string | null;
  labels: Record<string, string>;
  host: string;
  chart: ChartData | null;
  chart_fault: string | null;
  taken: Record<string, number>;
  lost: string[];
  current: string[];
  steps: StepView[];
  waiting: string[];
  messages: string[];
}

/** A word of a person or from outside that the run has not used. */
export interface Said {
  kind: string;
  name: string;
  body: Record<string, unknown>;
  by: string | null;
  created_ns: number;
  late: boolean;
}

/** An event for a run. */
export interface Sent {
  name: string;
  payload?: unknown;
  id?: string | null;
}

/** Settings of a project. */
export interface Settings {
  four_eyes: boolean;
  approvers: Record<string, number>;
}

/** The first owner: *token* is what the server has printed. */
export interface Setup {
  token: string;
  name: string;
  password: string;
}

/** Runs, by their ids. */
export interface Several {
  ids: string[];
}

/**
 * What a page needs to know before anybody is logged in: whether the first owner is to be made,
 * whether passwords are taken, and what the provider is called.
 */
export interface Standing {
  setup: boolean;
  local: boolean;
  oidc: string | null;
}

/**
 * A run that is wanted: the *program* of the project by its name, in a *version* of it or the
 * newest.
 */
export interface Start {
  program: string;
  version?: number | null;
  inputs?: Record<string, unknown>;
  run_id?: string | null;
  labels?: Record<string, string>;
  seed?: number | null;
}

/** A run that was started, or was there already. */
export interface Started {
  id: string;
  program: string;
  version: number;
  created: boolean;
}

/** A step of either run, or of either program: `side` is `a` or `b` where only one has it. */
export interface StepDifference {
  path: string;
  side: "" | "a" | "b";
  differs: boolean;
  fields: Record<string, [string, string]>;
}

/**
 * A step as it is recorded, or one that is `running`: begun, and without an outcome.
 *
 * `output`, `request` and the values of `references` are strings of canonical JSON.
 * `beside` is `undo` or `reconcile` for a call that is made beside a step.
 */
export interface StepView {
  path: string;
  box: string;
  frame: string;
  step: string;
  type: string;
  status: string;
  start: number;
  end: number | null;
  output?: string;
  request?: string;
  error?: ErrorView;
  attempts?: AttemptView[];
  usage?: UsageView;
  references?: Record<string, string>;
  branch?: string;
  beside?: string;
  effect?: string;
  effect_key?: string;
  extra?: string;
}

/** A program with pending runs that no living worker can drive. */
export interface Stranded {
  program: string;
  digest: string;
  runs: number;
  reasons: string[];
}

/** The tokens of a call, with those that a provider tells apart; `cost_usd` is a decimal. */
export interface UsageView {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
  cached_tokens?: number;
  cache_write_tokens?: number;
  reasoning_tokens?: number;
  cost_usd?: string;
}

/** What is changed of a person; what is left out stays. */
export interface UserChange {
  disabled?: boolean | null;
  owner?: boolean | null;
  password?: string | null;
}

/** All people of the instance. */
export interface UserList {
  users: UserRow[];
}

/** A person who may log in. */
export interface UserRow {
  name: string;
  owner: boolean;
  disabled: boolean;
  local: boolean;
  created: number;
}

/** Whether recomputing a run gave its records. */
export interface Verified {
  identical: boolean;
  complete: boolean;
  text: string;
}

/** A filter of the list of runs that somebody keeps under a name. */
export interface View {
  name: string;
  query: string;
}

/** The views of whoever asks, by name. */
export interface ViewList {
  views: View[];
}

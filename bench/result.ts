/** What a benchmark leaves behind: tables of raw values, with what is needed to print them. */

export type Cell = string | number;

export interface Column {
  readonly key: string;
  readonly label: string;
  /** Digits behind the point. */
  readonly digits?: number;
}

export interface Table {
  readonly title: string;
  readonly columns: readonly Column[];
  readonly rows: readonly Readonly<Record<string, Cell>>[];
  /** Kept in the JSON alone: single trials that another table sums up. */
  readonly raw?: boolean;
}

export interface GroupResult {
  /** Whole sentences that a reader needs before the numbers. */
  readonly notes: readonly string[];
  readonly tables: readonly Table[];
}

/** What run.ts tells the process of a group. */
export interface GroupOptions {
  /** Small enough for a smoke test: the numbers mean nothing. */
  readonly quick: boolean;
  readonly rounds: number;
  /** Directory for files, so it names the medium. */
  readonly directory: string;
}

/** The version of a program that is not there. */
export const NOT_INSTALLED = 'not installed';

export interface Conditions {
  readonly date: string;
  readonly sealbd: string;
  /** With '+' where the checkout had changes. */
  readonly commit: string;
  readonly cpu: string;
  readonly cpuFlags: readonly string[];
  readonly cores: number;
  readonly memoryBytes: number;
  readonly system: string;
  readonly fileSystem: string;
  readonly node: string;
  /** OpenSSL inside Node, which the kernels are compared with. */
  readonly opensslOfNode: string;
  /** Kernel that the addon selects here, and the override if one is set. */
  readonly kernel: string;
  readonly sealbdCpu: string;
  readonly programs: Readonly<Record<string, string>>;
  readonly loadAverageBefore: readonly number[];
}

export interface BenchFile {
  readonly format: 1;
  /** What was typed. */
  readonly command: string;
  readonly quick: boolean;
  readonly conditions: Conditions;
  readonly loadAverageAfter: readonly number[];
  readonly groups: Readonly<Record<string, GroupResult & { readonly seconds: number }>>;
}

export function check(ok: boolean, name: string, detail?: unknown): void;
export function is<T>(found: T, wanted: T, name: string): void;

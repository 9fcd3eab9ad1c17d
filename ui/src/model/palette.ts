// What can be gone to by typing a part of its name.

export interface Goal {
  name: string;
  told: string;
  address: string;
}

const MOST_SHOWN = 12;

/** The goals that have all words of *text*, those whose name begins with it first. */
export function matching(goals: Goal[], text: string): Goal[] {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const found = goals.filter((goal) => {
    const said = `${goal.name} ${goal.told}`.toLowerCase();
    return words.every((word) => said.includes(word));
  });
  const begins = (goal: Goal) => goal.name.toLowerCase().startsWith(words[0] ?? "");
  return [...found.filter(begins), ...found.filter((goal) => !begins(goal))].slice(0, MOST_SHOWN);
}

const RUN = /^[!-~]{1,200}$/;

/** The run that *text* may be the id of. */
export function runNamed(text: string): Goal[] {
  const id = text.trim();
  if (!RUN.test(id)) return [];
  return [{ name: id, told: "the run of this id", address: `#/run/${encodeURIComponent(id)}` }];
}

import { type State, word } from "../model/run";
import { StateIcon } from "./Icon";

export function StateChip({ state, text }: { state: State; text?: string }) {
  return (
    <span className={`chip state-${state}`}>
      <StateIcon state={state} size={12} />
      {text ?? word(state)}
    </span>
  );
}

// Each message as the model sees it: control tokens, and what training would supervise.

const SUPERVISED = "learned in training", GIVEN = "given";

function tokenRows(rendered) {
  const rows = [];
  rendered.ids.forEach((id, index) => {
    const turn = rendered.messages[index];
    const learned = rendered.loss_mask[index] === 1;
    const classes = [learned && "on", rendered.special[index] && "sp"].filter(Boolean).join(" ");
    const title = `id ${id}, ${learned ? SUPERVISED : GIVEN}`;
    (rows[turn] ??= []).push(el("i", { class: classes || null, title }, rendered.tokens[index]));
  });
  return rows.map((row, index) => el("div", { class: "tokens", "data-turn": index }, ...row));
}

function legend(rendered) {
  const count = rendered.loss_mask.reduce((sum, bit) => sum + bit, 0);
  return el(
    "p", { class: "legend" },
    el("i", { class: "on" }, SUPERVISED), " ", el("i", {}, GIVEN),
    ` ${rendered.ids.length} tokens, ${count} learned; format ${rendered.format}, ${rendered.fingerprint.slice(0, 19)}`,
  );
}

"use strict";
// Markdown to elements. Text only ever becomes text nodes, so nothing a model writes can become markup.

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

const INLINE = /(`+)([\s\S]+?)\1(?!`)|\*\*([^*\n]+(?:\*[^*\n]+)*)\*\*|\*([^\s*][^*\n]*)\*|\[([^\]\n]+)\]\(([^)\s]+)\)/;

function inline(text) {
  const nodes = [];
  for (let found; (found = INLINE.exec(text)); text = text.slice(found.index + found[0].length)) {
    if (found.index) nodes.push(text.slice(0, found.index));
    const [all, , code, bold, italic, label, address] = found;
    if (code !== undefined) nodes.push(el("code", {}, code));
    else if (bold !== undefined) nodes.push(el("strong", {}, ...inline(bold)));
    else if (italic !== undefined) nodes.push(el("em", {}, ...inline(italic)));
    else nodes.push(link(all, label, address));
  }
  return text ? [...nodes, text] : nodes;
}

function link(all, label, address) {
  // Only addresses that cannot run anything, and only ones that leave this page openly.
  if (!/^(https?:\/\/|mailto:)/i.test(address)) return all;
  return el("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, ...inline(label));
}

// A button that copies text, where the browser lets a page copy: on this machine, or over TLS.
function copyButton(text) {
  const { clipboard } = navigator;
  return clipboard ? [el("button", { type: "button", onclick: () => clipboard.writeText(text) }, "Copy")] : [];
}

function codeBlock(text, language) {
  return el("pre", {}, el("code", { "data-language": language || null }, text), ...copyButton(text));
}

const ITEM = /^\s*(?:([-*+])|(\d+)[.)])\s+(.*)$/;

function markdown(text) {
  const fragment = document.createDocumentFragment();
  const lines = text.split("\n");
  let at = 0;
  const take = (test, change) => {
    const taken = [];
    while (at < lines.length && test(lines[at])) taken.push(change(lines[at++]));
    return taken;
  };
  while (at < lines.length) {
    const line = lines[at];
    const fence = /^\s*(`{3,}|~{3,})\s*([\w+-]*)/.exec(line);
    const heading = /^(#{1,6})\s+(.*)$/.exec(line);
    const item = ITEM.exec(line);
    if (fence) {
      at++;
      const code = take(l => !l.trim().startsWith(fence[1]), l => l);
      at++;
      fragment.append(codeBlock(code.join("\n"), fence[2]));
    } else if (heading) {
      at++;
      fragment.append(el(`h${Math.min(6, heading[1].length + 2)}`, {}, ...inline(heading[2])));
    } else if (item) {
      const ordered = item[2] !== undefined;
      const items = take(l => ITEM.test(l) && (ITEM.exec(l)[2] !== undefined) === ordered, l => ITEM.exec(l)[3]);
      const start = ordered && item[2] !== "1" ? item[2] : null;
      fragment.append(el(ordered ? "ol" : "ul", { start }, ...items.map(i => el("li", {}, ...inline(i)))));
    } else if (line.startsWith(">")) {
      const quoted = take(l => l.startsWith(">"), l => l.replace(/^>\s?/, ""));
      fragment.append(el("blockquote", {}, markdown(quoted.join("\n"))));
    } else if (!line.trim()) {
      at++;
    } else {
      const plain = l => l.trim() && !/^(\s*(`{3,}|~{3,})|#{1,6}\s|>)/.test(l) && !ITEM.test(l);
      const paragraph = [lines[at++], ...take(plain, l => l)];
      fragment.append(el("p", {}, ...paragraph.flatMap((l, i) => (i ? [el("br"), ...inline(l)] : inline(l)))));
    }
  }
  return fragment;
}

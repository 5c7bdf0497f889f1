/**
 * Puts counters into compiled JavaScript, so that libFuzzer sees which way it went: one at the start of each block,
 * branch and case, a byte that is counted up. Comparisons of two values hand them over, so that the next inputs hold them.
 * The text between stays as it is, line for line.
 */
import { parseAst } from 'vitest/node';

const COMPARISONS = new Set(['===', '!==', '<', '<=', '>', '>=']);

/** The code with counters from `first` on, and how many it took. */
export function instrument(code, first) {
  const edits = [];
  let next = first;
  const insert = (at, text, order) => edits.push({ at, end: at, text, order });
  const count = () => `__fuzz.hits[${next++}]++`;
  const before = (node) => {
    insert(node.start, `(${count()}, `, 1);
    insert(node.end, ')', -1);
  };
  const branch = (node) => {
    if (node.type === 'BlockStatement') return; // counted as a block
    insert(node.start, `{ ${count()}; `, 1);
    insert(node.end, ' }', -1);
  };
  const loop = (node) => branch(node.body);
  const rules = {
    BlockStatement: (node) => insert(node.start + 1, ` ${count()};`, 0),
    ArrowFunctionExpression: (node) => node.body.type !== 'BlockStatement' && before(node.body),
    IfStatement: (node) => {
      branch(node.consequent);
      if (node.alternate) branch(node.alternate);
    },
    ConditionalExpression: (node) => {
      before(node.consequent);
      before(node.alternate);
    },
    LogicalExpression: (node) => before(node.right),
    SwitchCase: (node) => {
      if (node.consequent.length > 0) insert(node.consequent[0].start, `${count()}; `, 1);
    },
    ForStatement: loop,
    ForOfStatement: loop,
    ForInStatement: loop,
    WhileStatement: loop,
    DoWhileStatement: loop,
    BinaryExpression: ({ start, end, left, operator }) => {
      if (!COMPARISONS.has(operator)) return;
      const at = code.indexOf(operator, left.end);
      insert(start, `__fuzz.compare('${operator}', `, 1);
      edits.push({ at, end: at + operator.length, text: ',', order: 0 });
      insert(end, ')', -1);
    },
  };
  walk(parseAst(code), rules);
  const result = apply(code, edits);
  parseAst(result);
  return { code: result, counters: next - first };
}

function walk(node, rules) {
  if (Array.isArray(node)) for (const each of node) walk(each, rules);
  if (typeof node?.type !== 'string') return;
  rules[node.type]?.(node);
  for (const value of Object.values(node)) if (typeof value === 'object') walk(value, rules);
}

/**
 * Edits in the order of their places. Two at one place: what ends there comes first, then what begins. What was found
 * first is the outer one: it begins before, and ends after, the others.
 */
function apply(code, edits) {
  const numbered = edits.map((edit, i) => ({ ...edit, i }));
  numbered.sort((a, b) => a.at - b.at || a.order - b.order || (a.order < 0 ? b.i - a.i : a.i - b.i));
  let done = 0;
  let out = '';
  for (const { at, end, text } of numbered) {
    out += code.slice(done, at) + text;
    done = end;
  }
  return out + code.slice(done);
}

/** The oracle itself: what it lets a block be, when requests were never answered. */
import { describe, expect, it } from 'vitest';
import { History } from '../support/history.js';

/** Version 1 is flushed, 2 acknowledged, 3 asked for. */
function doubtful(): History {
  const history = new History(2);
  history.issue(0, 1);
  history.flushing()();
  history.issue(0, 2);
  history.issue(0, 3, false);
  return history;
}

describe('History', () => {
  it('lets a read give what was acknowledged last or asked for since, and a crash what was flushed too', () => {
    const history = doubtful();
    expect([history.possible(0), history.allowed(0), history.current(0)]).toEqual([[2, 3], [1, 2, 3], 2]);
    expect(history.possible(1)).toEqual([0]);
  });

  it.each([
    [2, [1, 2]],
    [3, [1, 2, 3]],
  ])('knows from a read of version %i what is there, but not that it is flushed', (version, allowed) => {
    const history = doubtful();
    history.observe(0, version);
    expect([history.possible(0), history.allowed(0)]).toEqual([[version], allowed]);
    history.flushing()();
    expect(history.allowed(0)).toEqual([version]);
  });

  it('takes no version for seen that can not be there', () => {
    const history = doubtful();
    expect(() => history.observe(0, 1)).toThrow(/block 0 can not be version 1/);
    history.issue(1, 4, false);
    history.observe(1, 4);
    expect(() => history.observe(1, 0)).toThrow(/block 1 can not be version 0/);
  });

  it('tells of a span of time what a block may have been in it, and nothing from before or after', () => {
    const history = doubtful();
    const end = history.witness();
    history.issue(0, 4);
    history.issue(1, 5, false);
    const versions = end();
    history.issue(0, 6);
    expect(versions.map((one) => [...one])).toEqual([
      [2, 3, 4],
      [0, 5],
    ]);
  });
});

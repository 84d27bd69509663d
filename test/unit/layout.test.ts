/**
 * The slots of a cluster are told from those of a cluster whose name begins alike.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { slotName, slotPattern } from '../../src/topic/records/layout.ts';

test('a cluster’s pattern matches its own slots, of every epoch, and no other slot', () => {
  const clusters = ['shop', 'shop_2', 'shop_2_3', 'sho', 'a', 'a_1'];
  for (const cluster of clusters) {
    const pattern = new RegExp(slotPattern(cluster));
    for (const other of clusters) {
      for (const epoch of [1, 2, 3, 10, 199]) {
        const matches = pattern.test(slotName(other, epoch));
        assert.is(matches, other === cluster, `${cluster}: ${slotName(other, epoch)}`);
      }
    }
  }
});

test('what only resembles a slot of the cluster is not one', () => {
  const pattern = new RegExp(slotPattern('shop'));
  for (const name of ['understudy_shop_', 'understudy_shop_0', 'understudy_shop_1x']) {
    assert.not(pattern.test(name), name);
  }
});

test.run();

/**
 * The invariants of the shop, which hold at every moment on every node. They are checked in one
 * REPEATABLE READ snapshot; the violations are lines that name rows. An order that is visible
 * without all of its lines, its goods and its charge breaks at least one of these sums.
 */
import type { Client } from 'pg';

export interface ShopCheck {
  readonly orders: number;
  /** Empty when everything adds up. */
  readonly violations: readonly string[];
}

interface Invariant {
  readonly what: string;
  /** Selects the rows that break it, as `name`, `has`, `wants`. */
  readonly sql: string;
}

const invariants: readonly Invariant[] = [
  {
    what: 'the lines of an order do not match its totals',
    sql: `SELECT 'order ' || o.id AS name,
            o.status || ', ' || coalesce(l.lines, 0) || ' lines of ' || coalesce(l.total, 0) AS has,
            o.line_count || ' lines of ' || o.total AS wants
          FROM orders o
          LEFT JOIN (SELECT order_id, count(*) AS lines, sum(quantity * price) AS total
                     FROM order_lines GROUP BY order_id) l ON l.order_id = o.id
          WHERE o.status = 'new' OR (o.status = 'cancelled') <> (o.line_count = 0)
            OR o.line_count <> coalesce(l.lines, 0) OR o.total <> coalesce(l.total, 0)`,
  },
  {
    what: 'lines exist without their order',
    sql: `SELECT 'order ' || l.order_id AS name, count(*)::text AS has, 'none' AS wants
          FROM order_lines l LEFT JOIN orders o ON o.id = l.order_id
          WHERE o.id IS NULL GROUP BY l.order_id`,
  },
  {
    what: 'left and sold do not add up to the initial stock',
    sql: `SELECT s.sku AS name, (s.quantity + coalesce(l.sold, 0))::text AS has,
            s.initial::text AS wants
          FROM stock s
          LEFT JOIN (SELECT sku, sum(quantity) AS sold FROM order_lines GROUP BY sku) l
            ON l.sku = s.sku
          WHERE s.quantity + coalesce(l.sold, 0) <> s.initial`,
  },
  {
    what: 'a balance is not the sum of its orders',
    sql: `SELECT 'customer ' || c.id AS name, c.balance::text AS has,
            coalesce(o.total, 0)::text AS wants
          FROM customers c
          LEFT JOIN (SELECT customer_id, sum(total) AS total FROM orders GROUP BY customer_id) o
            ON o.customer_id = c.id
          WHERE c.balance <> coalesce(o.total, 0)`,
  },
];

/** Rows shown of each broken invariant. */
const shownMax = 3;

export async function checkShop(client: Client): Promise<ShopCheck> {
  await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
  const { rows } = await client.query<{ orders: string }>('SELECT count(*) AS orders FROM orders');
  const violations: string[] = [];
  for (const { what, sql } of invariants) {
    const broken = await client.query<Record<'name' | 'has' | 'wants', string>>(sql);
    if (broken.rows.length === 0) continue;
    const shown = broken.rows.slice(0, shownMax);
    const details = shown.map(({ name, has, wants }) => `${name} has ${has}, wants ${wants}`);
    violations.push(`${what} (${broken.rows.length}): ${details.join('; ')}`);
  }
  await client.query('COMMIT');
  return { orders: Number(rows[0]?.orders), violations };
}

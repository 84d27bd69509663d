/**
 * The shop's transactions, each over several tables. They run in a session inside a transaction,
 * and return the commit as the journal keeps it. Rows are locked in one order, the stock by its key
 * and the customer last, so that no two transactions deadlock.
 */
import { randomUUID } from 'node:crypto';
import type { Client } from 'pg';
import type { Commit, OrderState } from './journal.ts';

export interface OrderItem {
  readonly sku: string;
  readonly quantity: number;
}

export type Buyer =
  | { readonly kind: 'known'; readonly id: string }
  | { readonly kind: 'new'; readonly email: string };

export async function placeOrder(
  client: Client,
  buyer: Buyer,
  items: readonly OrderItem[],
): Promise<Commit> {
  const skus = items.map(({ sku }) => sku);
  const quantities = items.map(({ quantity }) => quantity);
  const customerId = buyer.kind === 'known' ? buyer.id : await createCustomer(client, buyer.email);
  await lockStock(client, skus);
  const orderId = await oneText(
    client,
    `INSERT INTO orders (reference, customer_id, placed_at, status)
     VALUES ($1, $2, clock_timestamp(), 'new') RETURNING id AS one`,
    [randomUUID(), customerId],
  );
  await client.query(
    `INSERT INTO order_lines (order_id, line_no, sku, quantity, price)
     SELECT $1, i.line_no, i.sku, i.quantity, s.price
     FROM unnest($2::text[], $3::int[]) WITH ORDINALITY AS i (sku, quantity, line_no)
     JOIN stock s ON s.sku = i.sku`,
    [orderId, skus, quantities],
  );
  await takeFromStock(client, skus, quantities);
  const total = await oneText(
    client,
    `UPDATE orders o SET status = 'placed', line_count = l.lines, total = l.total
     FROM (SELECT count(*) AS lines, sum(quantity * price) AS total
           FROM order_lines WHERE order_id = $1) l
     WHERE o.id = $1 RETURNING o.total AS one`,
    [orderId],
  );
  await charge(client, customerId, total);
  const pieces = quantities.reduce((sum, quantity) => sum + quantity, 0);
  const state: OrderState = { status: 'placed', lines: items.length, pieces, total };
  return { orderId, newCustomerId: buyer.kind === 'new' ? customerId : null, state };
}

/** Deletes the lines and returns the goods to the stock. */
export async function cancelOrder(client: Client, placed: Commit): Promise<Commit> {
  const { orderId, state } = placed;
  const { rows } = await client.query<OrderItem>(
    'SELECT sku, quantity FROM order_lines WHERE order_id = $1 ORDER BY line_no',
    [orderId],
  );
  const skus = rows.map(({ sku }) => sku);
  await lockStock(client, skus);
  await takeFromStock(
    client,
    skus,
    rows.map(({ quantity }) => -quantity),
  );
  await client.query('DELETE FROM order_lines WHERE order_id = $1', [orderId]);
  const customerId = await oneText(
    client,
    `UPDATE orders SET status = 'cancelled', line_count = 0, total = 0
     WHERE id = $1 RETURNING customer_id AS one`,
    [orderId],
  );
  await charge(client, customerId, `-${state.total}`);
  const cancelled: OrderState = { status: 'cancelled', lines: 0, pieces: 0, total: '0.00' };
  return { orderId, newCustomerId: null, state: cancelled };
}

async function createCustomer(client: Client, email: string): Promise<string> {
  return oneText(
    client,
    'INSERT INTO customers (email, name) VALUES ($1, $2) RETURNING id AS one',
    [email, `Customer ${email.split('@')[0]}`],
  );
}

async function lockStock(client: Client, skus: readonly string[]): Promise<void> {
  await client.query('SELECT FROM stock WHERE sku = ANY ($1) ORDER BY sku FOR NO KEY UPDATE', [
    skus,
  ]);
}

async function takeFromStock(
  client: Client,
  skus: readonly string[],
  quantities: readonly number[],
): Promise<void> {
  await client.query(
    `UPDATE stock s SET quantity = s.quantity - i.quantity, changed_at = clock_timestamp()
     FROM unnest($1::text[], $2::int[]) AS i (sku, quantity) WHERE s.sku = i.sku`,
    [skus, quantities],
  );
}

async function charge(client: Client, customerId: string, amount: string): Promise<void> {
  await client.query('UPDATE customers SET balance = balance + $2::numeric WHERE id = $1', [
    customerId,
    amount,
  ]);
}

async function oneText(client: Client, sql: string, values: readonly unknown[]): Promise<string> {
  const { rows } = await client.query<{ one: unknown }>(sql, [...values]);
  const [row] = rows;
  if (row === undefined) throw new Error(`no row was returned by: ${sql}`);
  return String(row.one);
}

/**
 * Loads the initial products and customers of the shop: it commits them in a session on the leader,
 * and returns their keys for the writers.
 */
import type { Client } from 'pg';

export interface Catalogue {
  readonly skus: readonly string[];
  readonly customerIds: readonly string[];
}

const products = 60;
const customers = 300;
/** Far more than the demo can sell. */
const initialQuantity = 100_000;
/** 32 characters each; random, so that they do not compress. */
const detailWords = 90;

export async function loadCatalogue(client: Client): Promise<Catalogue> {
  await client.query('BEGIN');
  const stock = await client.query<{ sku: string }>(
    `INSERT INTO stock (sku, price, initial, quantity, details)
     SELECT 'SKU-' || lpad(n::text, 4, '0'), (n * 37 % 9900 + 99) / 100.0, $2, $2,
            jsonb_build_object('title', 'Product ' || n, 'sheet', w.words)
     FROM generate_series(1, $1::int) AS n
     CROSS JOIN LATERAL (
       SELECT jsonb_agg(md5(n || '/' || i)) AS words FROM generate_series(1, $3::int) AS i
     ) AS w
     RETURNING sku`,
    [products, initialQuantity, detailWords],
  );
  const people = await client.query<{ id: string }>(
    `INSERT INTO customers (email, name)
     SELECT 'customer' || n || '@example.com', 'Customer ' || n
     FROM generate_series(1, $1::int) AS n RETURNING id`,
    [customers],
  );
  await client.query('COMMIT');
  return {
    skus: stock.rows.map(({ sku }) => sku),
    customerIds: people.rows.map(({ id }) => id),
  };
}

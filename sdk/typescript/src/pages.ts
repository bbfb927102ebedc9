/** Lists come in pages; a program mostly wants their entries. */

export interface Page<T> {
  data: T[];
  next_cursor: string | null;
  has_more: boolean;
}

/** All entries of a list, fetched page by page while they are looked at: `for await (const entry of pages)`. */
export class Pages<T> implements AsyncIterable<T> {
  readonly #fetch: (cursor: string | undefined) => Promise<Page<T>>;

  constructor(fetch: (cursor: string | undefined) => Promise<Page<T>>) {
    this.#fetch = fetch;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T, void, undefined> {
    for await (const page of this.byPage()) yield* page.data;
  }

  /** The same, a page at a time. `next_cursor` of the last one seen goes on from there, at any later time. */
  async *byPage(): AsyncGenerator<Page<T>, void, undefined> {
    let cursor: string | undefined;
    do {
      const page = await this.#fetch(cursor);
      yield page;
      cursor = page.next_cursor ?? undefined;
    } while (cursor !== undefined);
  }
}

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { handler } from './handler.js';

const utf8 = (text) => new TextEncoder().encode(text);

test('it greets by key and counts words', () => {
  const [output] = handler.handle({ key: utf8('Zoë'), value: utf8(' two  words ') });
  assert.equal(output.target, 'greetings');
  assert.equal(new TextDecoder().decode(output.value), 'Hello Zoë, I read 2 words.');
});

test('it rejects an event without a key', () => {
  assert.throws(() => handler.handle({ value: utf8('who am I?') }), { tag: 'reject', val: 'the event has no key' });
});

test('it rejects a key that is not UTF-8', () => {
  assert.throws(() => handler.handle({ key: new Uint8Array([0xff]), value: utf8('x') }), { tag: 'reject' });
});

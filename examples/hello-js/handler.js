// Greets the sender of the event and reports how many words it had.

export const handler = {
  handle(event) {
    if (!event.key) throw { tag: 'reject', val: 'the event has no key' };
    if (!event.value) throw { tag: 'reject', val: 'the event has no value (it is a tombstone)' };
    const name = text(event.key);
    const words = text(event.value).split(/\s+/).filter(Boolean).length;
    const greeting = bytes(`Hello ${name}, I read ${words} words.`);
    return [{ target: 'greetings', key: event.key, value: greeting, headers: [] }];
  },
};

// Keys and values are bytes. The engine has no TextDecoder, but decodes percent-encoded UTF-8.
function text(utf8) {
  const escaped = Array.from(utf8, (byte) => `%${byte.toString(16).padStart(2, '0')}`).join('');
  try {
    return decodeURIComponent(escaped);
  } catch {
    throw { tag: 'reject', val: 'key or value is not UTF-8' };
  }
}

function bytes(text) {
  return Uint8Array.from(unescape(encodeURIComponent(text)), (character) => character.charCodeAt(0));
}

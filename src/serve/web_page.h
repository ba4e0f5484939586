// The page at /: a chat with the models of this server, in one file without dependencies.
#pragma once

namespace lorry::serve {

inline constexpr char kWebPage[] = R"html(<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>lorry</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 0 auto; padding: 1rem;
       min-height: 100vh; box-sizing: border-box; display: flex; flex-direction: column; }
header { display: flex; gap: .5rem; align-items: center; }
header b { margin-right: auto; }
#log { flex: 1; padding: 1rem 0; }
.turn { white-space: pre-wrap; overflow-wrap: anywhere; margin: .5rem 0; padding: .5rem .8rem;
        border-radius: .6rem; }
.user { background: #8883; margin-left: 15%; }
.error { color: #c33; }
form { display: flex; gap: .5rem; position: sticky; bottom: 0; padding: .5rem 0; background: Canvas; }
textarea { flex: 1; font: inherit; padding: .4rem; resize: vertical; }
button, select, input { font: inherit; }
</style></head><body>
<header><b>lorry</b><select id="model" title="model"></select>
<input id="key" type="password" placeholder="API key" size="8" hidden>
<button id="clear" type="button">Clear</button></header>
<div id="log"></div>
<form id="form"><textarea id="text" rows="2" placeholder="Message" autofocus></textarea>
<button id="send">Send</button></form>
<script>
const $ = id => document.getElementById(id);
let messages = [], abort = null;
const headers = () => ({'Content-Type': 'application/json',
                        ...($('key').value && {Authorization: 'Bearer ' + $('key').value})});
function turn(kind, text) {
  const div = document.createElement('div');
  div.className = 'turn ' + kind;
  div.textContent = text;
  $('log').append(div);
  div.scrollIntoView({block: 'end'});
  return div;
}
async function models() {
  const reply = await fetch('/v1/models', {headers: headers()});
  $('key').hidden = reply.status !== 401 && !$('key').value;
  if (reply.status === 503) return setTimeout(models, 500);
  if (!reply.ok) return;
  const names = (await reply.json()).data.map(m => m.id);
  $('model').replaceChildren(...names.map(n => new Option(n)));
  $('model').selectedIndex = names.length - 1;
}
async function send() {
  const text = $('text').value.trim();
  if (!text) return;
  $('text').value = '';
  messages.push({role: 'user', content: text});
  turn('user', text);
  const div = turn('assistant', '');
  abort = new AbortController();
  $('send').textContent = 'Stop';
  let answer = '';
  try {
    const reply = await fetch('/v1/chat/completions', {method: 'POST', headers: headers(),
      signal: abort.signal,
      body: JSON.stringify({model: $('model').value || undefined, messages, stream: true})});
    if (!reply.ok) throw new Error((await reply.json()).error.message);
    const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = '';
    for (;;) {
      const {value, done} = await reader.read();
      if (done) break;
      const lines = (rest + value).split('\n');
      rest = lines.pop();
      for (const line of lines) {
        if (!line.startsWith('data: {')) continue;
        const data = JSON.parse(line.slice(6));
        if (data.error) throw new Error(data.error.message);
        answer += data.choices[0]?.delta.content ?? '';
        div.textContent = answer;
      }
      div.scrollIntoView({block: 'end'});
    }
  } catch (e) {
    if (e.name !== 'AbortError') turn('error', e.message);
  }
  messages.push({role: 'assistant', content: answer});
  abort = null;
  $('send').textContent = 'Send';
}
$('form').onsubmit = e => { e.preventDefault(); abort ? abort.abort() : send(); };
$('text').onkeydown = e => {
  if (e.key === 'Enter' && !e.shiftKey) { e.preventDefault(); if (!abort) send(); }
};
$('clear').onclick = () => { messages = []; $('log').replaceChildren(); };
$('key').onchange = models;
models();
</script></body></html>
)html";

}  // namespace lorry::serve

#!/usr/bin/env python3
"""Writes internal/tokenizer/chat/testdata/cases.json: what transformers makes of conversations under templates.

    python tools/interop/golden/chat.py internal/tokenizer/chat/testdata [TEMPLATE.jinja...]

The templates here are written for the purpose, with the means of those of Llama-2, Llama-3, Mistral, Qwen2 and Qwen3; templates given as files are put in
their place. transformers 4.57.6 and Jinja 3.1.6. strftime_now is taken away, as shardpress does not define it.
"""

import json
import pathlib
import sys

import jinja2
from transformers.utils import chat_template_utils

TEMPLATES = {
    "instructions": """{% if messages[0]['role'] == 'system' %}{% set turns = messages[1:] %}{% set head = messages[0]['content'] %}{% else %}{% set turns = messages %}{% set head = false %}{% endif %}{% for turn in turns %}{% if (turn['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('turns must alternate') }}{% endif %}{% if loop.index0 == 0 and head != false %}{% set text = '<<' + head + '>>\\n\\n' + turn['content'] %}{% else %}{% set text = turn['content'] %}{% endif %}{% if turn['role'] == 'user' %}{{ bos_token + '[Q] ' + text.strip() + ' [/Q]' }}{% elif turn['role'] == 'assistant' %}{{ ' ' + text.strip() + ' ' + eos_token }}{% endif %}{% endfor %}""",
    "headers": """{% for m in messages %}{% set part = '<|' + m['role'] + '|>\\n\\n' + m['content'] | trim + '<|end|>' %}{% if loop.first %}{% set part = bos_token + part %}{% endif %}{{ part }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n\\n' }}{% endif %}\n""",
    "date": """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "1 May 2020" %}
    {%- endif %}
{%- endif %}
{#- A comment, which leaves nothing. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set head = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set head = "" %}
{%- endif %}

{{- "Date: " + date_string + "\\n" }}
{%- if tools is not none %}
    {%- for t in tools %}{{- t | tojson(indent=4) }}{%- endfor %}
{%- endif %}
{{- head }}
{%- for m in messages %}
    {%- if not (m.role == 'tool' or 'calls' in m) %}
        {{- '[' + m['role'] + ']' + m['content'] | trim + '|' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '[assistant]' }}
{%- endif %}
""",
    "thoughts": """{%- set ns = namespace(open=true, last=messages|length - 1) %}
{%- for m in messages[::-1] %}
    {%- set at = (messages|length - 1) - loop.index0 %}
    {%- if ns.open and m.role == "user" and m.content is string and not(m.content.startswith('<r>') and m.content.endswith('</r>')) %}
        {%- set ns.open = false %}
        {%- set ns.last = at %}
    {%- endif %}
{%- endfor %}
{%- for m in messages %}
    {%- if (m.role == "user") or (m.role == "system" and not loop.first) %}
        {{- '<' + m.role + '>' + m.content + '</>' + '\\n' }}
    {%- elif m.role == "assistant" %}
        {%- set text = m.content %}
        {%- set thought = '' %}
        {%- if m.thought is defined and m.thought is not none %}
            {%- set thought = m.thought %}
        {%- elif '</t>' in m.content %}
            {%- set text = m.content.split('</t>')[-1].lstrip('\\n') %}
            {%- set thought = m.content.split('</t>')[0].rstrip('\\n').split('<t>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and (loop.last or (not loop.last and thought)) %}
            {{- '<a><t>\\n' + thought.strip('\\n') + '\\n</t>\\n\\n' + text.lstrip('\\n') }}
        {%- else %}
            {{- '<a>' + text }}
        {%- endif %}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '</>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<a>' }}
    {%- if thinking is defined and thinking is false %}
        {{- '<t></t>' }}
    {%- endif %}
{%- endif %}
""",
    "selected": """{%- set asked = messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for m in messages | rejectattr("role", "==", "system") %}
    {%- if (m["role"] == "user") != (ns.index % 2 == 0) %}
        {{- raise_exception("the wrong turn: " ~ ns.index) }}
    {%- endif %}
    {%- set ns.index = ns.index + 1 %}
{%- endfor %}
{{- asked | length }}:{{ messages | selectattr("name", "undefined") | list | length }}
{%- for m in messages %}
  {%- if m["role"] == "user" and m == asked[-1] %}
    {{- "last " + m["content"] }}
  {%- endif %}
{%- endfor %}
""",
    "spaces": """  {% if true %}
    one {# gone #}
  {# a line of its own #}
\t{%+ if true %} two {%+ endif +%}
three {%- if true -%}

   four   {% endif -%}   five
{{ 'six' -}}
   seven  {{- ' eight' }}
{% for m in messages %}
  {{ loop.index }}{{ '.' if loop.first else ',' }} {{ m.role }}{% if not loop.last %};{% endif %}

{% else %}
  nobody
{% endfor %}
  {% endif %}

end

""",
    "values": """{{ true }} {{ none }} {{ nothing }} {{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 2 - 3 * 4 }} {{ 'a' 'b' ~ 1 ~ true }}
{{ 'abc'[1] }} {{ 'abc'[-1] }} {{ 'abcdef'[1:-1:2] }} {{ 'abc'[::-1] }} {{ 'abc'[5:] }} {{ [1, 2, 3][-2:] | join('+') }} {{ ['b', 'a'] | first }}
{{ 1 == true }} {{ '1' == 1 }} {{ none == false }} {{ nothing == none }} {{ 'b' in 'abc' }} {{ 4 not in [1, 2] }} {{ not 1 }} {{ 0 or 'x' }} {{ '' and 'y' }}
{{ nothing | default('d') }} {{ '' | default('e', true) }} {{ ' x ' | trim | length }} {{ 'Ab' | upper }}{{ 'Ab'.lower() }} {{ 'a-b-c'.replace('-', '') }}
{{ 'a b  c'.split() | join(',') }} {{ 'a,b'.split(',')[1] }} {{ 'x' if nothing }} {{ 'y' if nothing else 'z' if false else 'w' }}
{{ "q\\"'\\n\\t\\\\" | tojson }} {{ [1, none, 'ü', []] | tojson }} {{ messages[0] | tojson(indent=2) if messages }} {{ messages | tojson }}
{% for k, v in (messages[0] if messages else namespace()).items() %}{{ k }}={{ v }};{% endfor %}
{% for i in range(9) %}{% if i == 2 %}{% continue %}{% elif i > 4 %}{% break %}{% endif %}{{ i }}{% endfor %}
{% set x = 1 %}{% for i in range(2) %}{% set x = 2 %}{{ x }}{% endfor %}{{ x }} {% for i in range(6) if i % 2 %}{{ loop.index }}/{{ loop.length }}:{{ i }} {{ loop.revindex }} {% endfor %}
{{ messages is iterable }} {{ 1 is integer }} {{ 'x' is not string }} {{ x is defined and x is not none }} {{ count }} {{ label | string }} {{ flag is true }}
""",
}

CONVERSATIONS = {
    "one": [("user", "  two boats? ")],
    "system": [("system", "Be brief.\n"), ("user", "hello"), ("assistant", " hi "), ("user", "bye\n")],
    "thought": [("user", "why"), ("assistant", "<t>\nhmm\n</t>\n\nso"), ("user", "<r>1</r>"), ("assistant", "<t>\nagain</t>\nthen")],
    "wrong": [("assistant", "first"), ("user", "second")],
    "twice": [("user", "a"), ("user", "b ü ☃ \"'<\x01")],
    "none": [],
}

VARS = [{}, {"date_string": "2 May 2020", "thinking": False, "enable_thinking": False, "count": 3, "label": "l", "flag": True}]


def main():
    out, files = pathlib.Path(sys.argv[1]), sys.argv[2:]
    templates = {pathlib.Path(f).stem: pathlib.Path(f).read_text() for f in files} or TEMPLATES
    cases = []
    for template, source in templates.items():
        for conversation, turns in CONVERSATIONS.items():
            messages = [{"role": r, "content": c} for r, c in turns]
            for variables in VARS:
                compiled = chat_template_utils._compile_jinja_template(source)
                compiled.environment.globals.pop("strftime_now", None)
                try:
                    want = compiled.render(messages=messages, tools=None, documents=None, add_generation_prompt=bool(variables), bos_token="<s>", eos_token="</s>", **variables)
                except (jinja2.exceptions.TemplateError, TypeError, AttributeError):
                    want = None
                cases.append({"template": template, "conversation": conversation, "add_generation_prompt": bool(variables), "vars": variables, "want": want})
    out.mkdir(parents=True, exist_ok=True)
    conversations = {n: [{"role": r, "content": c} for r, c in turns] for n, turns in CONVERSATIONS.items()}
    whole = {"templates": templates, "conversations": conversations, "cases": cases}
    (out / "cases.json").write_text(json.dumps(whole, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

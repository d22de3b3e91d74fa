// Sends the request that a form describes and shows the answer below it.
"use strict";

const HEADERS = ["content-type", "allow", "idempotent-replayed", "location", "retry-after"];

// The header fields that are filled in.
function headers(form) {
    const fields = [...form.elements].filter((field) => field.dataset.in === "header" && field.value !== "");
    return Object.fromEntries(fields.map((field) => [field.name, field.value]));
}

async function send(form) {
    const output = form.querySelector("output");
    const value = (_, name) => encodeURIComponent(form.elements.namedItem(name).value);
    const path = form.dataset.path.replace(/\{(\w+)\}/g, value);
    const request = `${form.dataset.method} ${path}`;
    output.textContent = `${request} …`;
    try {
        const answer = await fetch(path, { method: form.dataset.method, headers: headers(form) });
        const present = HEADERS.filter((name) => answer.headers.has(name));
        const lines = present.map((name) => `${name}: ${answer.headers.get(name)}`);
        output.textContent = [request, answer.status, ...lines, "", await answer.text()].join("\n");
    } catch (error) {
        output.textContent = `${request}\n${error}`;
    }
}

for (const form of document.forms) {
    form.addEventListener("submit", (event) => {
        event.preventDefault();
        send(form);
    });
}

// Times in the reader's zone, live changes, and passkeys. Without scripts, everything but passkeys works.
"use strict";

const base = document.body.dataset.base;

function announce(text) {
  document.getElementById("live").textContent = text;
}

function showLocalTimes(root) {
  const format = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
  for (const element of root.querySelectorAll("time:not([data-local])")) {
    element.dataset.local = "1";
    element.title = element.textContent;
    element.textContent = format.format(new Date(element.dateTime));
  }
}

// --- live changes: an event has no content, so the page reads itself again

let isAnswering = false;
document.addEventListener("submit", () => { isAnswering = true; });

// Returns the current page, null if it cannot be read, or undefined if the person is logged out.
async function readAgain() {
  try {
    const answer = await fetch(location.href, { headers: { "x-authz-live": "1" }, redirect: "manual" });
    if (answer.type === "opaqueredirect") return undefined;
    return answer.ok ? new DOMParser().parseFromString(await answer.text(), "text/html") : null;
  } catch {
    return null;
  }
}

// The list as the server sent it. The script changes the times of the page, so the page itself cannot be compared.
let sentList = document.getElementById("list")?.innerHTML;

function updateList(fresh) {
  const before = document.getElementById("list");
  const after = fresh.getElementById("list");
  if (!after || sentList === after.innerHTML) return;
  sentList = after.innerHTML;
  const focused = document.activeElement?.getAttribute("href");
  document.adoptNode(after);
  before.replaceWith(after);
  document.title = fresh.title;
  showLocalTimes(after);
  if (focused) after.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
  announce(`The list has changed: ${after.dataset.count} open.`);
}

function updateCard(fresh) {
  const before = document.getElementById("state");
  const after = fresh.getElementById("state");
  if (!after || isAnswering || before.dataset.state === after.dataset.state) return;
  before.dataset.state = after.dataset.state;
  for (const button of document.querySelectorAll(".answer button")) button.disabled = true;
  announce(`Somebody answered meanwhile, or the approval ended. It is now ${after.dataset.words}. Load this page again to read it.`);
}

function followChanges() {
  const live = document.body.dataset.live;
  if (live === undefined) return;
  const isCard = document.getElementById("state") !== null;
  const source = new EventSource(`${base}/events?id=${encodeURIComponent(live)}`);
  let reading = false;
  let isAgain = false;
  const show = (fresh) => {
    if (fresh) (isCard ? updateCard : updateList)(fresh);
    if (fresh !== undefined) return;
    source.close();
    announce("You are logged out. Load this page again to log in.");
  };
  // The browser connects again after a lost connection, but not after a response such as 503 of a proxy.
  source.addEventListener("error", async () => {
    if (source.readyState !== EventSource.CLOSED) return;
    const fresh = await readAgain();
    show(fresh);
    if (fresh !== undefined) setTimeout(followChanges, 15_000);
  });
  source.addEventListener("changed", async () => {
    if (reading) {
      isAgain = true;
      return;
    }
    reading = true;
    do {
      isAgain = false;
      show(await readAgain());
    } while (isAgain);
    reading = false;
  });
}

// --- passkeys

const bytesOf = (text) =>
  Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (one) => one.charCodeAt(0));
const textOf = (buffer) =>
  btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");

async function post(url, fields) {
  const answer = await fetch(url, {
    method: "POST",
    headers: { accept: "application/json" },
    body: new URLSearchParams(fields),
  });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error);
  return body;
}

const withBytes = (listed) => (listed ?? []).map((one) => ({ ...one, id: bytesOf(one.id) }));

async function register(options) {
  const made = await navigator.credentials.create({
    publicKey: {
      ...options,
      challenge: bytesOf(options.challenge),
      user: { ...options.user, id: bytesOf(options.user.id) },
      excludeCredentials: withBytes(options.excludeCredentials),
    },
  });
  return JSON.stringify({
    id: made.id,
    rawId: textOf(made.rawId),
    type: made.type,
    response: {
      attestationObject: textOf(made.response.attestationObject),
      clientDataJSON: textOf(made.response.clientDataJSON),
    },
  });
}

async function assert(options) {
  const signed = await navigator.credentials.get({
    publicKey: {
      ...options,
      challenge: bytesOf(options.challenge),
      allowCredentials: withBytes(options.allowCredentials),
    },
  });
  const { response } = signed;
  return JSON.stringify({
    id: signed.id,
    rawId: textOf(signed.rawId),
    type: signed.type,
    response: {
      authenticatorData: textOf(response.authenticatorData),
      clientDataJSON: textOf(response.clientDataJSON),
      signature: textOf(response.signature),
      userHandle: response.userHandle ? textOf(response.userHandle) : null,
    },
  });
}

const ceremonies = {
  async passkey(form, url, fields) {
    form.elements.assertion.value = await assert(await post(url, fields));
    // `submit` does not send the pressed button, so its value becomes a field.
    const outcome = document.createElement("input");
    outcome.type = "hidden";
    outcome.name = "outcome";
    outcome.value = fields.outcome;
    form.append(outcome);
    form.submit();
  },
  async login(_form, url, fields) {
    const assertion = await assert(await post(`${url}/options`, fields));
    location.assign((await post(url, { assertion })).to);
  },
  async register(_form, url, fields) {
    const credential = await register(await post(`${url}/options`, fields));
    location.assign((await post(`${url}/add`, { ...fields, credential })).to);
  },
  async invite(_form, url) {
    const secret = location.hash.slice(1);
    const credential = await register(await post(`${url}/options`, { secret }));
    location.assign((await post(`${url}/add`, { secret, credential })).to);
  },
};

for (const [name, run] of Object.entries(ceremonies)) {
  for (const form of document.querySelectorAll(`form[data-${name}]`)) {
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      if (!window.PublicKeyCredential) {
        announce("This browser has no passkeys, or the page is not served over https.");
        return;
      }
      // Disabled buttons are not fields of the form, so the fields are read first.
      const fields = Object.fromEntries(new FormData(form, event.submitter));
      const buttons = form.querySelectorAll("button");
      announce("");
      for (const button of buttons) button.disabled = true;
      try {
        await run(form, form.dataset[name], fields);
      } catch (error) {
        announce(
          error.name === "NotAllowedError"
            ? "The passkey was not used: you cancelled, or it took too long."
            : error.message,
        );
        for (const button of buttons) button.disabled = false;
        isAnswering = false;
      }
    });
  }
}

showLocalTimes(document);
followChanges();

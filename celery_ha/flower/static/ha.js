/* The HA tab: asks for everything once a second and draws anew what has changed. */
(function () {
    "use strict";

    var page = document.getElementById("ha"), readOnly = "readOnly" in page.dataset, drawn = {};
    var SVG = "http://www.w3.org/2000/svg", SHARDS = [92, 134], NODES = [138, 150], NAMED = 24;

    // -- making elements: always as text, since names are the users' ------------------------------

    function fill(element, attributes, children) {
        Object.keys(attributes || {}).forEach(function (name) { element.setAttribute(name, attributes[name]); });
        children.forEach(function (child) {
            element.append(child === null || child === undefined || child === "" ? "—" : child);
        });
        return element;
    }

    function h(tag, attributes) {
        return fill(document.createElement(tag), attributes, Array.prototype.slice.call(arguments, 2));
    }

    function s(tag, attributes) {
        return fill(document.createElementNS(SVG, tag), attributes, Array.prototype.slice.call(arguments, 2));
    }

    function table(columns, rows, empty) {
        if (!rows.length) { return h("p", {"class": "ha-muted"}, empty); }
        var head = columns.map(function (column) { return h("th", {}, column || " "); });
        return h("table", {"class": "table table-hover align-middle"},
            h("thead", {}, fill(h("tr"), {}, head)), fill(h("tbody"), {}, rows));
    }

    function row(attributes) {
        var cells = Array.prototype.slice.call(arguments, 1);
        return fill(h("tr", attributes), {}, cells.map(function (cell) {
            return cell instanceof Element && cell.tagName === "TD" ? cell : h("td", {}, cell);
        }));
    }

    function id(text) { return h("td", {"class": "ha-id"}, text); }

    function moment(at) { return at === null ? null : new Date(at * 1000).toLocaleString(); }

    function span(seconds) {
        if (seconds === null) { return null; }
        if (seconds < 60) { return seconds.toFixed(seconds < 10 ? 1 : 0) + " s"; }
        var units = [[86400, "d", 3600, "h"], [3600, "h", 60, "m"], [60, "m", 1, "s"]];
        var unit = units.find(function (each) { return seconds >= each[0]; });
        return Math.floor(seconds / unit[0]) + unit[1] + Math.floor(seconds % unit[0] / unit[2]) + unit[3];
    }

    // -- the ring ---------------------------------------------------------------------------------

    function arc(radii, from, to, attributes, title) {
        function point(radius, turn) {
            var angle = 2 * Math.PI * turn - Math.PI / 2;
            return (200 + radius * Math.cos(angle)).toFixed(2) + " " + (200 + radius * Math.sin(angle)).toFixed(2);
        }
        to = Math.min(to, from + 0.9999); // the ends of a whole circle would be one point, which draws nothing
        var large = to - from > 0.5 ? 1 : 0, inner = radii[0], outer = radii[1];
        attributes.d = "M" + point(outer, from) + "A" + [outer, outer, 0, large, 1].join(" ") + " " + point(outer, to) +
            "L" + point(inner, to) + "A" + [inner, inner, 0, large, 0].join(" ") + " " + point(inner, from) + "Z";
        return s("path", attributes, s("title", {}, title));
    }

    // Few, some or many: what matters is the order of magnitude.
    function level(waiting) { return waiting === 0 ? 0 : waiting < 10 ? 1 : waiting < 100 ? 2 : 3; }

    function ring(name, found) {
        var picture = s("svg", {"class": "ha-ring", viewBox: "-60 20 520 360", role: "img", "aria-label": "Ring of " + name});
        var at = 0, part = 1 / found.shards, all = 0;
        Object.keys(found.waiting).forEach(function (shard) { all += found.waiting[shard]; });
        found.nodes.forEach(function (node, index) {
            var start = at, middle = start + node.shards.length * part / 2;
            if (!node.shards.length) { return; }
            node.shards.forEach(function (shard) {
                var waiting = found.waiting[shard] || 0;
                picture.append(arc(SHARDS, at, at + part, {"class": "ha-shard ha-backlog-" + level(waiting), "data-shard": shard,
                    "data-node": node.node}, shard + " on " + node.node + ": " + waiting + " waiting"));
                at += part;
            });
            // Neighbours differ whatever their number: by the golden angle.
            picture.append(arc(NODES, start, at, {"class": "ha-arc", fill: "hsl(" + (index * 137.5 + 100) % 360 + " 45% 50%)"},
                node.node + ": " + node.shards.length + " shards"));
            if (found.nodes.length <= NAMED) {
                var angle = 2 * Math.PI * middle - Math.PI / 2, x = 200 + 158 * Math.cos(angle);
                picture.append(s("text", {x: x, y: 204 + 160 * Math.sin(angle), "text-anchor": x < 200 ? "end" : "start"}, node.node));
            }
        });
        if (!found.nodes.length) {
            picture.append(arc(SHARDS, 0, 1, {"class": "ha-backlog-" + level(all)}, "nobody consumes these shards"));
        }
        picture.append(s("text", {x: 200, y: 192, "class": "ha-ring-title"}, name),
            s("text", {x: 200, y: 210, "class": "ha-ring-sub"}, found.shards + " shards"),
            s("text", {x: 200, y: 226, "class": "ha-ring-sub"}, all + " waiting"));
        return picture;
    }

    function rings(found) {
        var legend = h("div", {"class": "ha-legend"});
        ["0", "1–9", "10–99", "100 or more waiting"].forEach(function (text, at) {
            var dot = s("svg", {viewBox: "0 0 2 2"}, s("circle", {cx: 1, cy: 1, r: 1, "class": "ha-backlog-" + at}));
            legend.append(h("span", {}, dot, text));
        });
        var names = Object.keys(found);
        if (!names.length) { return h("p", {"class": "ha-muted"}, "no sharded queues: see ha_queues"); }
        return fill(h("div"), {}, names.map(function (name) { return ring(name, found[name]); }).concat([legend]));
    }

    // -- the other sections -----------------------------------------------------------------------

    function nodes(found) {
        return table(["node", "state", "lease age", "weight", "shards", "in flight", "queues"], found.nodes.map(function (node) {
            var state = h("span", {"class": "ha-state ha-state-" + node.state.replace(" ", "-")},
                node.state + (node.leader ? ", leader" : ""));
            return row({"data-node": node.name, "data-state": node.state}, node.name, state, span(node.age), node.weight, node.shards,
                node.in_flight, node.queues.join(", "));
        }), "no nodes: start a worker");
    }

    function queues(found) {
        return table(["queue", "shards", "waiting"], found.queues.map(function (queue) {
            return row({}, queue.queue, queue.shards, queue.waiting);
        }), "no queues");
    }

    function heirs(shards, ring) {
        var owner = {};
        Object.keys(ring).forEach(function (queue) {
            ring[queue].nodes.forEach(function (node) {
                node.shards.forEach(function (shard) { owner[shard] = node.node; });
            });
        });
        return Object.keys(shards).map(function (shard) {
            return shards[shard] + " to " + shard + (owner[shard] ? " (now on " + owner[shard] + ")" : "");
        }).join(", ");
    }

    function failovers(found, all) {
        if (!found.length) { return h("p", {"class": "ha-muted"}, "no failovers in the last week"); }
        return fill(h("ol", {"class": "ha-timeline"}), {}, found.map(function (each) {
            var moved = heirs(each.queues, all.ring);
            return h("li", {"data-node": each.node}, h("time", {}, moment(each.fenced_at)), " ", h("strong", {}, each.node), " ",
                each.reason + "; recovered in " + (span(each.took) || "?") + ": " + each.requeued + " requeued, " + each.restarted +
                " had started, " + each.locks + " locks" + (moved ? "; " + moved : ""));
        }));
    }

    function requeued(found) {
        return table(["task", "id", "was on", "went to", "is"], found.map(function (each) {
            var now = each.node ? each.state + " on " + each.node : "waiting";
            return row({"data-task": each.task_id}, each.task, id(each.task_id), each.from, each.queues.join(", "), now);
        }), "none that Flower has seen");
    }

    function locks(found) {
        var held = found.locks.map(function (lock) {
            var line = found.lines[lock.name];
            return row({"data-lock": lock.name}, lock.name, lock.slot, lock.state, lock.node, id(lock.task), moment(lock.since),
                span(lock.left), line ? line.waiting + ": " + line.first.map(function (each) { return each.task; }).join(", ") : 0);
        });
        var taken = found.locks.map(function (lock) { return lock.name; });
        Object.keys(found.lines).filter(function (name) { return taken.indexOf(name) < 0; }).forEach(function (name) {
            held.push(row({}, name, null, "free", null, null, null, null, found.lines[name].waiting));
        });
        var shown = table(["lock", "slot", "state", "node", "task", "since", "ends in", "in line"], held, "no locks");
        return more(shown, found.total - found.locks.length);
    }

    function dead(found) {
        var letters = found.letters.map(function (letter) {
            var actions = h("td", {"class": "ha-actions"}, readOnly ? " " : act("retry", letter), " ", readOnly ? " " : act("drop", letter));
            return row({"data-letter": letter.id}, letter.task, id(letter.task_id), letter.queue, moment(letter.at), letter.reason, actions);
        });
        return more(table(["task", "id", "queue", "since", "reason", ""], letters, "no dead letters"), found.total - letters.length);
    }

    function more(shown, number) {
        return number > 0 ? h("div", {}, shown, h("p", {"class": "ha-muted"}, number + " more")) : shown;
    }

    function beat(found) {
        var head = h("p", {"class": "ha-muted"}, "in office: " + (found.leader || "nobody") + "; beats: " + found.beats.length);
        var entries = found.entries.map(function (entry) {
            return row({}, entry.name, entry.count, moment(entry.last), moment(entry.next));
        });
        var fired = found.history.slice(0, 5).map(function (each) {
            return row({}, moment(each.at), each.entry, each.number, each.by);
        });
        return h("div", {}, head, table(["entry", "fired", "last due", "next due"], entries, "no entries: no beat ran yet"),
            fired.length ? table(["fired at", "entry", "number", "by"], fired, "") : " ");
    }

    // -- actions ----------------------------------------------------------------------------------

    function act(action, letter) {
        var kind = action === "drop" ? "btn-outline-danger" : "btn-outline-primary";
        var button = h("button", {type: "button", "class": "btn btn-sm " + kind, "data-action": action}, action);
        button.addEventListener("click", function () {
            if (action === "drop" && !window.confirm("Delete this dead letter for good?")) { return; }
            var token = document.cookie.match(/(?:^|;\s*)_xsrf=([^;]+)/);
            button.disabled = true;
            fetch(page.dataset.api + "/dead/" + action + "/" + encodeURIComponent(letter.id),
                {method: "POST", headers: {"X-XSRFToken": token ? decodeURIComponent(token[1]) : ""}})
                .then(function (response) {
                    return response.ok ? ask() : response.text().then(function (text) { say(text || response.statusText); });
                })
                .catch(function (error) { say(error.message); })
                .finally(function () { button.disabled = false; });
        });
        return button;
    }

    function say(text) {
        var close = h("button", {type: "button", "class": "btn-close me-2 m-auto", "data-bs-dismiss": "toast", "aria-label": "Close"}, " ");
        var toast = h("div", {"class": "toast text-bg-danger", role: "alert"}, h("div", {"class": "d-flex"},
            h("div", {"class": "toast-body"}, text), close));
        document.getElementById("toast-container").append(toast);
        window.bootstrap.Toast.getOrCreateInstance(toast, {delay: 10000}).show();
    }

    // -- asking -----------------------------------------------------------------------------------

    function put(name, value, draw, all) {
        // Only what changed: a button must not vanish under a click.
        var text = JSON.stringify(value), place = document.getElementById("ha-" + name);
        if (drawn[name] === text) { return; }
        drawn[name] = text;
        place.replaceChildren(value && value.error ? h("p", {"class": "ha-error"}, value.error) : draw(value, all));
    }

    function set(name, text) { document.getElementById("ha-" + name).textContent = text === null ? "—" : text; }

    function live(text, ok) {
        set("live", text);
        document.getElementById("ha-dot").className = "status-dot status-dot-" + (ok ? "live" : "error");
    }

    function show(found) {
        var status = found.status, flying = 0, waiting = 0, up = 0;
        status.nodes.forEach(function (node) { flying += node.in_flight; up += node.state === "live" ? 1 : 0; });
        status.queues.forEach(function (queue) { waiting += queue.waiting; });
        set("leader", status.leader ? status.leader.node + " leads, term " + status.leader.term : "nobody leads");
        set("nodes-live", up + " of " + status.nodes.length);
        set("messages", flying + " / " + waiting);
        set("in-line", status.in_line);
        set("dead-count", status.dead_letters);
        put("ring", found.ring, rings);
        put("nodes", status, nodes);
        put("queues", status, queues);
        put("failovers", found.failovers, failovers, found);
        put("requeued", found.requeued, requeued);
        put("dead", found.dead, dead);
        put("locks", found.locks, locks);
        put("beat", found.beat, beat);
        live("Live", true);
    }

    function ask() {
        return fetch(page.dataset.url + "/data", {headers: {Accept: "application/json"}}).then(function (response) {
            if (response.redirected || response.status === 401) { return window.location.reload(); }
            return response.json().then(function (found) {
                if (response.ok) { show(found); } else { live(found.error, false); }
            });
        }).catch(function () { live("Flower does not answer", false); });
    }

    function watch() {
        var began = Date.now();
        (document.hidden ? Promise.resolve() : ask()).finally(function () {
            // A large fleet takes its time: it is not asked more than a quarter of it.
            window.setTimeout(watch, Math.max(1000, 3 * (Date.now() - began)));
        });
    }

    watch();
}());

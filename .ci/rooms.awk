# Reads the Rust files named on the command line and checks four things: which file names which, that no files name each
# other in a circle, that rooms name only the rooms below them, and how long files and functions are.
#
#   lines ──▶ tokens ──▶ functions and their lengths          a file at a time, in `finish`
#                   └──▶ paths, imports, test modules
#                                └──▶ edges, circles, arrows   when all files are known, in END
#
# Tables come from the environment (ROOMS, TESTING_NAMED_BELOW, SHORT), limits by -v: longest, shortest, function_longest.
# Plain POSIX awk, tried with mawk, gawk, original-awk and busybox. Exits with 1 after printing what it objects to.
#
# A module is "crate SUBSEP path", the path as in Rust ("lease::grantor"), empty for the root of the crate.

BEGIN { for (i = 1; i < ARGC; i++) register(ARGV[i]) }

FNR == 1 {
    finish()
    file = FILENAME
}

{
    line = FNR
    if (comment || quoted || raw_end != "" || $0 !~ /^[ \t]*(\/\/|$)/) lex($0)
}

END {
    finish()
    for (i = 1; i <= files; i++) if (is_test(path_of[i])) test_file[path_of[i]] = 1
    read_rooms()
    draw_edges()
    for (c = 1; c <= crates; c++) circles(crate_at[c])
    for (c = 1; c <= crates; c++) if (crate_at[c] in has_rooms) rooms(crate_at[c])
    for (pair in lent) if (lent[pair] == "unused") {
        split(pair, ends, SUBSEP)
        object("allowed, and no such edge is there: " ends[1] " -> " ends[2])
    }
    sizes()
    exit (bad != 0)
}

# ---- files and modules ----------------------------------------------------------------------------------------------

# Notes the crate and module of a file by its path. What lies in `src/bin/NAME` is a crate of its own.
function register(path,    at, crate, rest, name) {
    crate = "quorate"
    at = 0
    if (path !~ /^src\//) {
        crate = substr(path, 1, index(path, "/") - 1)
        at = length(crate) + 1
    }
    rest = substr(path, at + 5)
    name = rest
    sub(/\.rs$/, "", name)
    if (name ~ /^bin\//) {
        sub(/^bin\//, "", name)
        at = index(name "/", "/")
        crate = crate "-bin-" substr(name, 1, at - 1)
        name = substr(name, at + 1)
    }
    sub(/(^|\/)mod$/, "", name)
    if (name == "lib" || name == "main") name = ""
    gsub(/\//, "::", name)
    path_of[++files] = path
    shown[path] = rest
    crate_of[path] = crate
    module_of[path] = name
    file_of[crate, name] = path
    length_of[path] = 0
    if (!(crate in known)) { known[crate] = 1; crate_at[++crates] = crate }
}

# A test is a file named as one, or one whose module, or a module around it, is declared under `#[cfg(test)]`.
function is_test(path,    crate, module) {
    if (path ~ /[\/_]tests(\.rs$|\/)/ || path in test_inside) return 1
    crate = crate_of[path]
    for (module = module_of[path]; module != ""; module = parent(module)) if ((crate, module) in test_module) return 1
    return 0
}

function parent(module,    at, last) {
    at = 0
    last = 0
    while ((at = index(substr(module, last + 1), "::")) > 0) last += at + 1
    return last ? substr(module, 1, last - 2) : ""
}

function join(module, name) { return module == "" ? name : module "::" name }

# Whether one module is around the other.
function kin(a, b) { return a == "" || b == "" || a == b || index(a, b "::") == 1 || index(b, a "::") == 1 }

# ---- tokens ---------------------------------------------------------------------------------------------------------

function put(text) {
    token[++tokens] = text
    line_of[tokens] = line
}

# Cuts a line into names, `::` and single signs. A string is one sign `"`, a number `0`; comments, characters and
# lifetimes leave nothing.
function lex(s,    word, next_sign) {
    for (;;) {
        if (comment) {
            if (!match(s, /\/\*|\*\//)) return
            comment += substr(s, RSTART, 1) == "/" ? 1 : -1
            s = substr(s, RSTART + 2)
        } else if (raw_end != "") {
            if (!index(s, raw_end)) return
            s = substr(s, index(s, raw_end) + length(raw_end))
            raw_end = ""
        } else if (quoted) {
            if (!match(s, /[\\"]/)) return
            quoted = substr(s, RSTART, 1) == "\\"
            s = substr(s, RSTART + 1 + quoted)
        } else {
            if (!match(s, /[^ \t]/)) return
            if (RSTART > 1) s = substr(s, RSTART)
            if (match(s, /^[A-Za-z_][A-Za-z0-9_]*/)) {
                word = substr(s, 1, RLENGTH)
                s = substr(s, RLENGTH + 1)
                next_sign = substr(s, 1, 1)
                if (next_sign == "\"" && (word == "b" || word == "c")) continue
                if (next_sign == "'" && word == "b") continue
                if (next_sign == "#" && word == "r" && s !~ /^#+"/) { s = substr(s, 2); continue }
                if ((word == "r" || word == "br" || word == "cr") && match(s, /^#*"/)) {
                    raw_end = "\"" substr(s, 1, RLENGTH - 1)
                    s = substr(s, RLENGTH + 1)
                    put("\"")
                    continue
                }
                put(word)
            } else if (match(s, /^[0-9][A-Za-z0-9_]*/)) {
                put("0")
                s = substr(s, RLENGTH + 1)
            } else if (s ~ /^\/\//) {
                return
            } else if (s ~ /^\/\*/) {
                comment = 1
                s = substr(s, 3)
            } else if (s ~ /^"/) {
                put("\"")
                quoted = 1
                s = substr(s, 2)
            } else if (s ~ /^'/) {
                s = after_quote(s)
            } else if (s ~ /^::/) {
                put("::")
                s = substr(s, 3)
            } else {
                put(substr(s, 1, 1))
                s = substr(s, 2)
            }
        }
    }
}

# What follows a character or a lifetime at the start of `s`.
function after_quote(s) {
    if (s ~ /^'\\/) {
        s = substr(s, 4)
        return substr(s, index(s, "'") + 1)
    }
    if (s ~ /^'[A-Za-z0-9_]/ && substr(s, 3, 1) != "'") {
        match(s, /^'[A-Za-z0-9_]+/)
        return substr(s, RLENGTH + 1)
    }
    s = substr(s, 3)
    return substr(s, index(s, "'") + 1)
}

# ---- a file ---------------------------------------------------------------------------------------------------------

# Takes from the tokens of the file just read what END needs, and forgets them.
function finish(    i, open, depth) {
    if (file == "") return
    length_of[file] = line
    split("", partner)
    split("", skip)
    depth = 0
    for (i = 1; i <= tokens; i++) {
        if (token[i] == "{" || token[i] == "(" || token[i] == "[") open[++depth] = i
        else if ((token[i] == "}" || token[i] == ")" || token[i] == "]") && depth) { partner[open[depth]] = i; depth-- }
    }
    while (depth) partner[open[depth--]] = tokens
    split("", open)
    crate = crate_of[file]
    scan()
    split("", token)
    split("", line_of)
    tokens = comment = quoted = 0
    raw_end = ""
}

# Walks over the tokens outside tests: functions, modules, imports, paths.
function scan(    i, module, t, from, depth, inner, ends, outer, base, flat) {
    module = module_of[file]
    depth = inner = base = 0
    for (i = 1; i <= tokens; i++) {
        t = token[i]
        while (inner && i > ends[inner]) { module = outer[inner]; base = flat[inner]; inner-- }
        if (t == "#" && (token[i + 1] == "[" || token[i + 1] == "!")) {
            i = attribute(i, module)
        } else if (t == "{") {
            depth++
        } else if (t == "}") {
            depth--
        } else if (t == "fn" && token[i + 1] ~ /^[A-Za-z_$]/) {
            measure(i)
        } else if (t == "mod" && token[i + 2] == "{") {
            inner++
            ends[inner] = partner[i + 2]
            outer[inner] = module
            flat[inner] = base
            base = depth + 1
            module = join(module, token[i + 1])
            file_of[crate, module] = file
            i++
        } else if (t == "use" && token[i + 1] != "<") {
            i = tree(i + 1, "", module, depth > base) - 1
        } else if (token[i + 1] == "::" && t ~ /^[A-Za-z_]/ && token[i - 1] != "::" && token[i - 1] != ".") {
            from = i
            while (token[i + 1] == "::" && token[i + 2] ~ /^[A-Za-z_]/) { t = t "::" token[i + 2]; i += 2 }
            refer(module, t, line_of[from])
        } else if (t ~ /^(struct|enum|trait|type|const|static|union)$/ && depth == base) {
            defined[crate, module, token[i + 1]] = 1
        }
        if (t == "fn" && depth == base) defined[crate, module, token[i + 1]] = 1
    }
}

# The last token of an attribute, or of the item under it if the attribute is `#[cfg(test)]`.
function attribute(i, module,    inside, last, at) {
    inside = token[i + 1] == "!"
    if (token[i + 1 + inside] != "[") return i
    last = partner[i + 1 + inside]
    at = i + 2 + inside
    if (token[at] != "cfg") return last
    if (token[at + 2] == "all") at += 2
    if (token[at + 2] != "test" || (token[at + 3] != ")" && token[at + 3] != ",")) return last
    if (inside) { test_inside[file] = 1; return last }
    return item(last + 1, module)
}

# The last token of the item that starts at `i`, all of it for tests.
function item(i, module,    t, whole, import) {
    while (token[i] == "#") i = partner[i + 1] + 1
    if (token[i] == "pub") { i++; if (token[i] == "(") i = partner[i] + 1 }
    whole = token[i] ~ /^(mod|fn|impl|use|struct|enum|trait|const|static|type|async|unsafe|extern|macro_rules)$/
    import = token[i] == "use"
    if (token[i] == "mod" && token[i + 2] == ";") test_module[crate, join(module, token[i + 1])] = 1
    for (; i <= tokens; i++) {
        t = token[i]
        if (t == "(" || t == "[" || (t == "{" && import)) i = partner[i]
        else if (t == "{") return partner[i]
        else if (t == ";" || (t == "," && !whole)) return i
        else if (t == "}" || t == ")" || t == "]") return i - 1
    }
    return tokens
}

# Notes the length of the function whose `fn` is token `i`: from that line to the line of the closing brace.
function measure(i,    from, body, j, table, size) {
    from = i
    while (i <= tokens && token[i] != "{" && token[i] != ";" && token[i] != "}") {
        if (token[i] == "(" || token[i] == "[") i = partner[i]
        i++
    }
    if (token[i] != "{") return
    functions_in[file]++
    size = line_of[partner[i]] - line_of[from] + 1
    if (size <= longest_in[file] && size <= function_longest) return
    table = 0
    for (j = i + 1; j < partner[i]; j++) if (token[j] == "match") {
        body = arms(j)
        if (!body) continue
        table += line_of[partner[body]] - line_of[j] + 1
        j = partner[body]
    }
    if (size > function_longest) {
        if (2 * table > line_of[partner[i]] - line_of[i] - 1) { tables_in[file]++; return }
        long_in[file] = long_in[file] line_of[from] " " token[from + 1] " " size "\n"
    }
    if (size > longest_in[file]) longest_in[file] = size
}

# The brace that opens the arms of the `match` at token `i`.
function arms(i,    before) {
    for (i++; i <= tokens; i++) {
        before = token[i - 1]
        if (token[i] == "(" || token[i] == "[" || (token[i] == "{" && before ~ /^(unsafe|async|move)$/)) i = partner[i]
        else if (token[i] == "{") return i
        else if (token[i] ~ /^[];})]$/) return 0
    }
    return 0
}

# Reads the part of a `use` that starts at token `i` after the path `prefix`; returns the token after it.
function tree(i, prefix, module, local,    path, name, from) {
    path = prefix
    from = line_of[i]
    while (i <= tokens) {
        if (token[i] == "::") {
            i++
        } else if (token[i] == "{") {
            i++
            while (i <= tokens && token[i] != "}") {
                i = tree(i, path, module, local)
                if (token[i] == ",") i++
            }
            return i + 1
        } else if (token[i] == "*") {
            refer(module, path, from)
            if (!local) globs[crate, module] = globs[crate, module] path " "
            return i + 1
        } else {
            name = token[i]
            if (name !~ /^[A-Za-z_$]/) return i + 1
            if (name == "self" && path != "") { name = path; sub(/.*::/, "", name) } else path = join(path, name)
            i++
            if (token[i] == "::") continue
            if (token[i] == "as") { name = token[i + 1]; i += 2 }
            refer(module, path, from)
            if (local) here[crate, module, name] = path
            else alias[crate, module, name] = path
            return i
        }
    }
    return i
}

function refer(module, path, at) {
    refs++
    ref_file[refs] = file
    ref_module[refs] = module
    ref_path[refs] = path
    ref_line[refs] = at
}

# ---- edges ----------------------------------------------------------------------------------------------------------

# Turns every path that was read into edges from its file to the files it names.
function draw_edges(    i, from, whole) {
    for (i = 1; i <= refs; i++) {
        from = ref_file[i]
        if (from in test_file) continue
        whole = absolute(crate_of[from], ref_module[i], ref_path[i], 0)
        if (whole != "") reach(from, i, whole, 0)
    }
}

# The path from the root of the crate, starting with "crate"; empty for a path into another crate.
function absolute(crate, module, path, hops,    head, rest, at) {
    if (hops > 9) return ""
    at = index(path, "::")
    head = at ? substr(path, 1, at - 1) : path
    rest = at ? substr(path, at) : ""
    if (head == "crate") return path
    if (head == "self") return join("crate", module) rest
    while (head == "super") {
        module = parent(module)
        at = index(substr(rest, 3), "::")
        head = at ? substr(rest, 3, at - 1) : substr(rest, 3)
        if (head != "super") return (module == "" ? "crate" : "crate::" module) rest
        rest = at ? substr(rest, at + 2) : ""
    }
    if ((crate, join(module, head)) in file_of) return "crate::" join(module, head) rest
    if ((crate, module, head) in here) path = here[crate, module, head]
    else if ((crate, module, head) in alias) path = alias[crate, module, head]
    else return ""
    path = absolute(crate, module, path, hops + 1)
    return path == "" ? "" : path rest
}

# Draws the edge to the file of the longest module in `whole`, and, where that file only passes a name on from another
# (`pub use`), to the file it comes from.
function reach(from, ref, whole, hops,    crate, n, seg, k, module, rest, next_path, list, i) {
    if (hops > 9) return
    crate = crate_of[from]
    n = split(whole, seg, "::")
    module = ""
    for (k = 2; k <= n && (crate, join(module, seg[k])) in file_of; k++) module = join(module, seg[k])
    edge(from, file_of[crate, module], ref)
    if (k > n) return
    rest = ""
    for (i = k + 1; i <= n; i++) rest = rest "::" seg[i]
    if ((crate, module, seg[k]) in alias) {
        next_path = absolute(crate, module, alias[crate, module, seg[k]], 0)
        if (next_path != "") reach(from, ref, next_path rest, hops + 1)
    } else if (!((crate, module, seg[k]) in defined)) {
        n = split(globs[crate, module], list, " ")
        for (i = 1; i <= n; i++) {
            next_path = absolute(crate, module, list[i], 0)
            if (next_path == "" || !offers(crate, next_path, seg[k])) continue
            reach(from, ref, next_path "::" seg[k] rest, hops + 1)
        }
    }
}

# Whether the module at `whole` has a name of its own, or passes it on.
function offers(crate, whole, name,    module) {
    module = whole
    sub(/^crate(::)?/, "", module)
    if ((crate, module, name) in defined || (crate, module, name) in alias) return 1
    return (crate, join(module, name)) in file_of || (crate, module) in globs
}

function edge(from, to, ref) {
    if (from == to || to == "" || to in test_file || (from, to) in why) return
    why[from, to] = ref_line[ref] ": " ref_path[ref]
    if ((from, to) in lent) lent[from, to] = "used"
    else if (!kin(module_of[from], module_of[to])) out[from] = out[from] to "\n"
    else if (module_of[from] == "") out_of_root[from] = out_of_root[from] to "\n"
}

# ---- circles --------------------------------------------------------------------------------------------------------

function circles(crate,    i, total, found) {
    total = 0
    found = found_circles
    for (i = 1; i <= files; i++) if (crate_of[path_of[i]] == crate && !(path_of[i] in test_file)) {
        total++
        if (!(path_of[i] in order)) visit(path_of[i])
    }
    printf "%s: %d files, %d circles\n", crate, total, found_circles - found
    for (i = found + 1; i <= found_circles; i++) print_circle(circle[i])
    if (found_circles > found) bad = 1
}

# Tarjan: files from which each other can be reached leave the stack together.
function visit(at,    n, next_files, i, to, members, count) {
    order[at] = low[at] = ++visited
    stack[++height] = at
    waiting[at] = 1
    n = split(out[at], next_files, "\n")
    for (i = 1; i < n; i++) {
        to = next_files[i]
        if (!(to in order)) {
            visit(to)
            if (low[to] < low[at]) low[at] = low[to]
        } else if (waiting[to] && order[to] < low[at]) {
            low[at] = order[to]
        }
    }
    if (low[at] != order[at]) return
    members = ""
    count = 0
    do {
        to = stack[height--]
        waiting[to] = 0
        members = to "\n" members
        count++
    } while (to != at)
    if (count > 1) circle[++found_circles] = members
}

# Prints the files of a knot and the shortest way round in it; every edge in it if EDGES is set.
function print_circle(members,    list, n, i, j, m, inside, best, way, text, tos, shortest_yet) {
    n = split(members, list, "\n") - 1
    for (i = 1; i <= n; i++) inside[list[i]] = 1
    text = ""
    for (i = 1; i <= files; i++) if (path_of[i] in inside) text = text " " shown[path_of[i]]
    printf "  circle of %d:%s\n", n, text
    for (i = 1; i <= n; i++) {
        way = around(list[i], inside)
        m = split(way, tos, "\n")
        if (i == 1 || m < shortest_yet) { best = way; shortest_yet = m }
    }
    m = split(best, tos, "\n")
    for (j = 1; j < m; j++) print_edge("    ", tos[j], tos[j + 1])
    if (ENVIRON["EDGES"] == "") return
    printf "  all its edges:\n"
    for (i = 1; i <= n; i++) {
        m = split(out[list[i]], tos, "\n")
        for (j = 1; j < m; j++) if (tos[j] in inside) print_edge("    ", list[i], tos[j])
    }
}

function print_edge(margin, from, to) {
    printf "%s%s -> %s    (line %s)\n", margin, shown[from], shown[to], why[from, to]
}

# The shortest way from a file back to it, inside a knot: the files, one a line.
function around(start, inside,    queue, head, tail, came, at, n, tos, i, way) {
    head = 1
    queue[tail = 1] = start
    while (head <= tail) {
        at = queue[head++]
        n = split(out[at], tos, "\n")
        for (i = 1; i < n; i++) {
            if (!(tos[i] in inside) || tos[i] in came) continue
            came[tos[i]] = at
            if (tos[i] == start) { head = tail + 1; break }
            queue[++tail] = tos[i]
        }
    }
    way = start
    at = start
    do {
        at = came[at]
        way = at "\n" way
    } while (at != start)
    return way
}

# ---- rooms ----------------------------------------------------------------------------------------------------------

# A row of ROOMS: crate room | rooms it may name | modules in it. Rows come from the ground up.
function read_rooms(    rows, n, i, part, head, words, m, j) {
    n = split(ENVIRON["ROOMS"], rows, "\n")
    for (i = 1; i <= n; i++) {
        if (rows[i] ~ /^[ \t]*(#|$)/) continue
        if (split(rows[i], part, "|") != 3 || split(part[1], head, " ") != 2) {
            object("not a row of rooms: " rows[i])
            continue
        }
        room_count[head[1]]++
        has_rooms[head[1]] = 1
        room_name[head[1], room_count[head[1]]] = head[2]
        m = split(part[2], words, " ")
        for (j = 1; j <= m; j++) {
            if (words[j] == "-") continue
            if (!((head[1], words[j]) in room_known))
                object(sprintf("%s: the table lets %s name %s, which is not below it", head[1], head[2], words[j]))
            may[head[1], head[2], words[j]] = 1
        }
        room_known[head[1], head[2]] = 1
        m = split(part[3], words, " ")
        for (j = 1; j <= m; j++) {
            gsub(/\//, "::", words[j])
            room_of[head[1], words[j]] = head[2]
        }
        room_of[head[1], head[2]] = head[2]
        room_entries[head[1]] = room_entries[head[1]] part[3] " "
    }
    read_lent()
}

# A row of TESTING_NAMED_BELOW: file -> file in testing, and why.
function read_lent(    rows, n, i, words, m) {
    n = split(ENVIRON["TESTING_NAMED_BELOW"], rows, "\n")
    for (i = 1; i <= n; i++) {
        m = split(rows[i], words, " ")
        if (!m || words[1] ~ /^#/) continue
        if (m < 4 || words[2] != "->" || words[3] !~ /\/src\/testing[.\/]/)
            object("not `from -> file in testing, and why`: " rows[i])
        else
            lent[words[1], words[3]] = "unused"
    }
}

# The room of a file: the row with the longest module around it. The root of the crate is the room `lib`.
function room(path,    crate, module) {
    crate = crate_of[path]
    module = module_of[path] == "" ? "lib" : module_of[path]
    for (; module != ""; module = parent(module)) if ((crate, module) in room_of) {
        entry_used[crate, module] = 1
        return room_of[crate, module]
    }
    return ""
}

function rooms(crate,    i, n, j, from, to, a, b, up, named, text, words, total) {
    up = 0
    for (i = 1; i <= files; i++) {
        from = path_of[i]
        if (crate_of[from] != crate || from in test_file) continue
        a = room(from)
        if (a == "") { object("no room for " shown[from] " in " crate); continue }
        n = split(out[from] out_of_root[from], words, "\n")
        for (j = 1; j < n; j++) {
            to = words[j]
            b = room(to)
            if (a == b || b == "") continue
            if ((crate, a, b) in may) {
                named[a, b] = 1
            } else {
                object(sprintf("arrow up: %s -> %s    (%s -> %s, line %s)", from, to, a, b, why[from, to]))
                up++
            }
        }
    }
    total = room_count[crate]
    for (i = total; i >= 1; i--) {
        a = room_name[crate, i]
        text = ""
        for (j = total; j >= 1; j--) if ((a, room_name[crate, j]) in named) text = text " " room_name[crate, j]
        printf "%s: %s ->%s\n", crate, a, (text == "" ? " nothing else" : text)
    }
    printf "%s: %d arrows up\n", crate, up
    n = split(room_entries[crate], words, " ")
    for (i = 1; i <= n; i++) {
        to = words[i]
        gsub(/\//, "::", to)
        if (!((crate, to) in entry_used))
            object(sprintf("%s: the table of rooms has %s, and no such file is there", crate, words[i]))
    }
}

# ---- sizes ----------------------------------------------------------------------------------------------------------

function sizes(    i, n, rows, words, path, size, most, least, count, long_most, tables, lists, j, text) {
    n = split(ENVIRON["SHORT"], rows, "\n")
    for (i = 1; i <= n; i++) {
        j = split(rows[i], words, " ")
        if (!j || words[1] ~ /^#/) continue
        if (j < 2) object("short without a reason: " words[1])
        excused[words[1]] = 1
        if (!(words[1] in length_of)) object("listed as short and not there: " words[1])
        else if (length_of[words[1]] >= shortest)
            object(sprintf("listed as short, and has %d lines: %s", length_of[words[1]], words[1]))
    }
    most = least = count = long_most = tables = 0
    for (i = 1; i <= files; i++) {
        path = path_of[i]
        size = length_of[path]
        if (size > most) most = size
        if (!(path in excused) && (!least || size < least)) least = size
        if (size > longest) object(sprintf("too long: %s has %d lines, %d are allowed", path, size, longest))
        if (size < shortest && !(path in excused))
            object(sprintf("too short: %s has %d lines, and is not listed with a reason", path, size))
        if (path in test_file) continue
        count += functions_in[path]
        tables += tables_in[path]
        if (longest_in[path] > long_most) long_most = longest_in[path]
        n = split(long_in[path], lists, "\n")
        for (j = 1; j < n; j++) {
            split(lists[j], words, " ")
            text = sprintf("too long: fn %s at %s:%d has %d lines", words[2], path, words[1], words[3])
            object(sprintf("%s, %d are allowed", text, function_longest))
        }
    }
    printf "files: %d, longest %d, shortest %d; ", files, most, least
    printf "functions: %d, longest %d, and %d longer tables of a match\n", count, long_most, tables
}

function object(text) {
    print text
    bad = 1
}

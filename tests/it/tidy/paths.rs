//! Finds the top-level modules that a file's text names. It is not a Rust parser: it understands
//! comments, strings, `crate::`, `super::` and groups in braces, which is sufficient here.

/// The first names after `crate::`, in order, without duplicates. A chain of `super::` that reaches
/// the root counts as `crate::`.
pub(super) fn from_the_crate_root(path: &str, text: &str) -> Vec<String> {
    let tokens = tokens(&code_only(text));
    let file_depth = module_depth(path);
    // for every open brace: whether it belongs to an inline module
    let mut braces: Vec<bool> = Vec::new();
    let mut names: Vec<String> = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        match tokens[at].as_str() {
            "{" => braces.push(at >= 2 && tokens[at - 2] == "mod"),
            "}" => {
                braces.pop();
            }
            "crate" => take_names(&tokens[at + 1..], &mut names),
            "super" if at == 0 || tokens[at - 1] != "::" => {
                let depth = file_depth + braces.iter().filter(|inline| **inline).count();
                let chain = tokens[at..]
                    .chunks(2)
                    .take_while(|pair| pair[0] == "super")
                    .count();
                if chain == depth {
                    take_names(&tokens[at + 2 * chain - 1..], &mut names);
                }
            }
            _ => {}
        }
        at += 1;
    }
    names
}

/// Every path in `text` that begins with `crate::`, `super::` or `self::`, from the crate's root.
/// `module` is the path of the file's own module.
pub(super) fn all(module: &[String], text: &str) -> Vec<Vec<String>> {
    let tokens = tokens(&code_only(text));
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let begins = matches!(token.as_str(), "crate" | "super" | "self")
            && tokens.get(at + 1).is_some_and(|next| next == "::")
            && (at == 0 || tokens[at - 1] != "::");
        if begins {
            path(&tokens[at..], module.to_vec(), &mut found);
        }
    }
    found
}

/// Reads a path, or each of a group, below `base`. Returns the number of its tokens.
fn path(tokens: &[String], mut base: Vec<String>, found: &mut Vec<Vec<String>>) -> usize {
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        match token.as_str() {
            "crate" => base.clear(),
            "super" => drop(base.pop()),
            "self" | "*" => {}
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token != "}") {
                    at += path(&tokens[at..], base.clone(), found).max(1);
                }
                return at + 1;
            }
            name if name.chars().all(is_name) => base.push(name.to_owned()),
            _ => return at,
        }
        at += 1;
        if tokens.get(at).is_none_or(|token| token != "::") {
            break;
        }
        at += 1;
    }
    found.push(base);
    at
}

/// `text` with comments and the content of strings and characters blanked.
pub(super) fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let rest = &chars[at..];
        let in_a_name = at > 0 && is_name(chars[at - 1]);
        let skipped = match rest {
            ['/', '/', ..] => until(rest, |left| left[0] == '\n'),
            ['/', '*', ..] => block_comment(rest),
            ['"', ..] => string(rest),
            ['\'', ..] => character(rest),
            ['r', '"' | '#', ..] if !in_a_name => raw_string(rest),
            ['b' | 'c', 'r', '"' | '#', ..] if !in_a_name => 1 + raw_string(&rest[1..]),
            _ => 0,
        };
        if skipped == 0 {
            code.push(rest[0]);
            at += 1;
        } else {
            code.push(' ');
            at += skipped;
        }
    }
    code
}

/// After `crate` or the last `super`: one name, or those at the first level of a group.
fn take_names(tokens: &[String], names: &mut Vec<String>) {
    let mut note = |name: &String| {
        let known = name == "self" || name == "*" || names.contains(name);
        if !known {
            names.push(name.clone());
        }
    };
    match tokens {
        [colons, brace, rest @ ..] if colons == "::" && brace == "{" => {
            let mut depth = 1;
            let mut first = true;
            for token in rest {
                match token.as_str() {
                    "{" => depth += 1,
                    "}" => depth -= 1,
                    "," if depth == 1 => first = true,
                    _ if first && depth == 1 => {
                        note(token);
                        first = false;
                    }
                    _ => {}
                }
                if depth == 0 {
                    break;
                }
            }
        }
        [colons, name, ..] if colons == "::" => note(name),
        _ => {}
    }
}

/// Names, `::` and single other characters.
fn tokens(code: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut joined = false;
    for c in code.chars() {
        let joins = joined
            && tokens.last().is_some_and(|last| {
                (is_name(c) && last.chars().all(is_name)) || (c == ':' && last == ":")
            });
        match tokens.last_mut() {
            Some(last) if joins => last.push(c),
            _ if c.is_whitespace() => {}
            _ => tokens.push(c.to_string()),
        }
        joined = !c.is_whitespace();
    }
    tokens
}

/// How many `super::` lead from the file's module to the root: 1 for `src/a.rs` and `src/a/mod.rs`,
/// 2 for `src/a/b.rs`.
fn module_depth(path: &str) -> usize {
    let parts = path.strip_prefix("src/").unwrap_or(path).split('/').count();
    parts - usize::from(path.ends_with("/mod.rs"))
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn until(rest: &[char], stop: impl Fn(&[char]) -> bool) -> usize {
    (0..rest.len())
        .find(|&n| stop(&rest[n..]))
        .unwrap_or(rest.len())
}

fn block_comment(rest: &[char]) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        match &rest[at..] {
            ['/', '*', ..] => {
                depth += 1;
                at += 2;
            }
            ['*', '/', ..] => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    break;
                }
            }
            _ => at += 1,
        }
    }
    at
}

fn string(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != '"' {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// The length of a character literal; 0 for a lifetime, whose quote is kept.
fn character(rest: &[char]) -> usize {
    match rest {
        ['\'', '\\', _, left @ ..] => 3 + until(left, |left| left[0] == '\'') + 1,
        ['\'', _, '\'', ..] => 3,
        _ => 0,
    }
}

/// The length of a raw string; 0 for a raw name such as `r#type`.
fn raw_string(rest: &[char]) -> usize {
    let hashes = until(&rest[1..], |left| left[0] != '#');
    if rest.get(1 + hashes) != Some(&'"') {
        return 0;
    }
    let body = &rest[2 + hashes..];
    let end = until(body, |left| {
        left[0] == '"' && left.len() > hashes && left[1..=hashes].iter().all(|c| *c == '#')
    });
    (2 + hashes + end + 1 + hashes).min(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_strings_are_no_code() {
        for (text, code) in [
            ("a // b\nc", "a  \nc"),
            ("a /* b /* c */ d */ e", "a   e"),
            (r#"a "b \" // c" d"#, "a   d"),
            ("r#\"a \" b\"# c", "  c"),
            ("br\"\\\" c", "  c"),
            ("for\"x\" r#type", "for  r#type"),
            (r"'\'' '\u{1f}' 'a' 'b: &'b", "      'b: &'b"),
            ("'\"' x '\"'", "  x  "),
            ("\"never closed", " "),
        ] {
            assert_eq!(code_only(text), code, "{text:?}");
        }
    }

    #[test]
    fn names_behind_crate_are_read_in_every_form() {
        for (text, names) in [
            ("use crate::a::b; use crate::a;", vec!["a"]),
            (
                "use crate::{a, b::{c, d}, e::f as g,};",
                vec!["a", "b", "e"],
            ),
            ("use crate::{\n    a::{self},\n    b,\n};", vec!["a", "b"]),
            (
                "pub(in crate::a) fn f() -> crate::b::C { $crate::c!() }",
                vec!["a", "b", "c"],
            ),
            ("pub(crate) fn crate_a() {}", vec![]),
            ("use xcrate::a; // crate::b", vec![]),
        ] {
            assert_eq!(from_the_crate_root("src/x/y.rs", text), names, "{text}");
        }
    }

    #[test]
    fn super_counts_where_it_climbs_to_the_root() {
        for (path, text, names) in [
            ("src/x.rs", "use super::a;", vec!["a"]),
            ("src/x/mod.rs", "use super::{a, b::c};", vec!["a", "b"]),
            ("src/x/y.rs", "use super::a;", vec![]),
            ("src/x/y.rs", "use super::super::a::b;", vec!["a"]),
            (
                "src/x.rs",
                "mod t { use super::a; } use super::b;",
                vec!["b"],
            ),
            (
                "src/x.rs",
                "mod t { use super::super::a; fn f() { super::b() } }",
                vec!["a"],
            ),
            ("src/x.rs", "pub(super) fn f() {}", vec![]),
        ] {
            assert_eq!(from_the_crate_root(path, text), names, "{path}: {text}");
        }
    }
}

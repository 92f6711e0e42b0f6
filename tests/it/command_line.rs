//! Completions for each shell, and a manual page for each command.

use std::io::ErrorKind;
use std::process::Command;

use crate::support::file;
use crate::support::process::{Ended, command, run};

fn said(words: &[&str]) -> Ended {
    run(&mut command(words))
}

#[test]
fn every_shell_can_complete_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ended = said(&["completions", shell]);
        assert_eq!(ended.status, 0, "{}", ended.err);
        for word in ["rotate", "no-running-proxy", "simulate"] {
            assert!(ended.out.contains(word), "{shell}: {word}");
        }
    }
    assert_eq!(said(&["completions", "tea"]).status, 2);
}

/// The completions that a shell offers for the last of `words`, with the script that this program
/// generates; `None` if the shell is not installed.
fn offered(shell: &str, words: &[&str]) -> Option<String> {
    let (folder, script) = file("completions", said(&["completions", shell]).out.as_bytes());
    let asked = match shell {
        "bash" => {
            r#"source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
            $(complete -p "$1" | sed 's/.*-F \([^ ]*\).*/\1/') "$1" "${!#}" "${COMP_WORDS[COMP_CWORD-1]}"
            printf '%s\n' "${COMPREPLY[@]}""#
        }
        _ => r#"source $argv[1]; complete -C (string join ' ' -- $argv[2..])"#,
    };
    let mut command = Command::new(shell);
    if shell == "fish" {
        command.args(["--no-config", "-c", asked]).arg(&script);
    } else {
        command.args(["-c", asked, shell]).arg(&script);
    }
    let answered = command.args(words).env("HOME", folder.path()).output();
    match answered {
        Ok(answered) => Some(String::from_utf8_lossy(&answered.stdout).into_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => panic!("{shell}: {error}"),
    }
}

#[test]
fn shells_complete_beyond_the_first_word() {
    for shell in ["bash", "fish"] {
        for (words, word) in [
            (&["collibra-auth-proxy", "ser"][..], "serve"),
            (&["collibra-auth-proxy", "serve", "--upst"], "--upstream"),
            (&["collibra-auth-proxy", "clients", "rot"], "rotate"),
            (
                &["collibra-auth-proxy", "clients", "rotate", "--no-r"],
                "--no-running-proxy",
            ),
        ] {
            match offered(shell, words) {
                Some(offered) => assert!(offered.contains(word), "{shell} {words:?}: {offered}"),
                None => println!("not tried: there is no {shell} here"),
            }
        }
    }
}

#[test]
fn zsh_takes_the_script() {
    let (_folder, script) = file("completions", said(&["completions", "zsh"]).out.as_bytes());
    let asked = "autoload -Uz compinit && compinit -D -u && source $1 && print $_comps[$2]";
    let mut command = Command::new("zsh");
    command.args(["-fc", asked, "zsh"]).arg(script);
    match command.arg("collibra-auth-proxy").output() {
        Ok(answered) => assert_eq!(answered.stdout, b"_collibra-auth-proxy\n", "{answered:?}"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "zsh: {error}"),
    }
}

#[test]
fn a_variable_that_is_empty_counts_as_not_set() {
    for (words, status) in [
        (&["completions", "bash"][..], 0),
        (&["wait", "--timeout", "0s"], 1),
    ] {
        let mut command = command(words);
        for name in ["ADMIN", "CONFIG", "LOG_LEVEL", "LOG_FORMAT"] {
            command.env(format!("COLLIBRA_AUTH_PROXY_{name}"), "");
        }
        let ended = run(&mut command);
        // a proxy may run at the default address; wrong usage ends with 2
        assert!(ended.status <= status, "{words:?}: {}", ended.err);
    }
}

#[test]
fn every_command_has_a_manual_page() {
    for (words, title) in [
        (&[][..], "collibra-auth-proxy"),
        (&["serve"], "collibra-auth-proxy-serve"),
        (&["clients", "rotate"], "collibra-auth-proxy-clients-rotate"),
    ] {
        let ended = said(&[&["man"], words].concat());
        assert_eq!(ended.status, 0, "{}", ended.err);
        assert!(
            ended.out.contains(&format!(".TH {title} 1")),
            "{}",
            ended.out
        );
    }
    let ended = said(&["man", "clients", "brew"]);
    assert_eq!(ended.status, 2);
    assert_eq!(
        ended.err,
        "there is no command collibra-auth-proxy clients brew"
    );
}

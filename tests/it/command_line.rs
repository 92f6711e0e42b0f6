//! What helps at a terminal: completions for each shell, a manual page for each command.

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

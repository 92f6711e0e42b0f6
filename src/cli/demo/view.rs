//! Renders the demo: a table that is redrawn in place on a terminal, or lines for a pipe. Pure.

use std::fmt::Write as _;
use std::time::Duration;

use super::board::{App, Call, STRIP, total};

/// One side of the demo at a moment.
#[derive(Clone, Debug)]
pub(super) struct Side {
    pub(super) title: &'static str,
    pub(super) apps: Vec<App>,
    /// Tokens issued by Collibra.
    pub(super) tokens: u64,
    /// Token requests that got a 429.
    pub(super) rate_limited: u64,
    /// Tokens left in the pool.
    pub(super) pool: f64,
}

/// Both sides at a moment.
#[derive(Clone, Debug)]
pub(super) struct Scene {
    pub(super) elapsed: Duration,
    pub(super) length: Duration,
    pub(super) speed: f64,
    pub(super) own: Side,
    pub(super) proxied: Side,
}

const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
const DIM: &str = "\x1b[2m";
const BOLD: &str = "\x1b[1m";
const PLAIN: &str = "\x1b[0m";
/// Clears to the end of the line, so that a shorter line leaves nothing of a longer one.
const REST: &str = "\x1b[K";

/// The gap between the two sides.
const GAP: &str = "    ";

/// The width of a side: name, strip and failure count.
const WIDTH: usize = 7 + STRIP + 10;

/// The size of a full pool.
const POOL: usize = 5;

/// Renders the table, one string per line, for a terminal of at least 86 columns.
pub(super) fn table(scene: &Scene) -> Vec<String> {
    let (own, proxied) = (&scene.own, &scene.proxied);
    let bar = 40;
    let share = scene.elapsed.as_secs_f64() / scene.length.as_secs_f64().max(f64::EPSILON);
    let done = ((share * bar as f64).round() as usize).min(bar);
    let mut lines = vec![
        format!(
            "{BOLD}collibra-auth-proxy demo{PLAIN}  one second here is {} s at Collibra",
            scene.speed
        ),
        format!(
            "{}{DIM}{}{PLAIN} {} of {} s",
            "━".repeat(done),
            "─".repeat(bar - done),
            scene.elapsed.as_secs(),
            scene.length.as_secs()
        ),
        String::new(),
        format!(
            "{BOLD}{:WIDTH$}{PLAIN}{GAP}{BOLD}{}{PLAIN}",
            own.title, proxied.title
        ),
    ];
    for (index, (left, right)) in own.apps.iter().zip(&proxied.apps).enumerate() {
        lines.push(format!("{}{GAP}{}", row(index, left), row(index, right)));
    }
    lines.push(String::new());
    lines.push(format!("{}{GAP}{}", pool(own), pool(proxied)));
    lines.push(format!("{}{GAP}{}", sums(own), sums(proxied)));
    lines.push(String::new());
    lines.push(format!(
        "{GREEN}▮{PLAIN} answered   {YELLOW}▮{PLAIN} no token: 429   {RED}▮{PLAIN} failed"
    ));
    lines.into_iter().map(|line| line + REST).collect()
}

/// Renders one line for a pipe.
pub(super) fn line(scene: &Scene) -> String {
    let side = |side: &Side| {
        let sum = total(&side.apps);
        format!(
            "{} answered, {} lost, {} tokens, {} x 429",
            sum.answered,
            sum.lost(),
            side.tokens,
            side.rate_limited
        )
    };
    format!(
        "{:>3} s | each for itself: {} | behind the proxy: {}",
        scene.elapsed.as_secs(),
        side(&scene.own),
        side(&scene.proxied)
    )
}

/// The summary at the end.
pub(super) fn summary(scene: &Scene) -> String {
    let at_collibra = scene.elapsed.mul_f64(scene.speed);
    let mut text = format!(
        "{} s here, {} minutes at Collibra, {} apps on each side:\n\n{:26}{:>10}{:>8}{:>8}{:>8}\n",
        scene.elapsed.as_secs(),
        (at_collibra.as_secs_f64() / 60.0).round(),
        scene.own.apps.len(),
        "",
        "answered",
        "lost",
        "tokens",
        "429s",
    );
    for side in [&scene.own, &scene.proxied] {
        let sum = total(&side.apps);
        let _ = writeln!(
            text,
            "  {:24}{:>10}{:>8}{:>8}{:>8}",
            side.title,
            sum.answered,
            sum.lost(),
            side.tokens,
            side.rate_limited
        );
    }
    text
}

fn row(index: usize, app: &App) -> String {
    let mut strip = String::new();
    let mut colour = "";
    for call in &app.strip {
        let wanted = match call {
            Call::Answered => GREEN,
            Call::RateLimited => YELLOW,
            Call::Failed => RED,
        };
        if wanted != colour {
            strip.push_str(wanted);
            colour = wanted;
        }
        strip.push('▮');
    }
    strip.push_str(PLAIN);
    strip.push_str(&" ".repeat(STRIP.saturating_sub(app.strip.len())));
    let lost = match app.lost() {
        0 => format!("{DIM}{:>5} lost{PLAIN}", 0),
        lost => format!("{RED}{lost:>5} lost{PLAIN}"),
    };
    format!("app {:<3}{strip}{lost}", index + 1)
}

fn pool(side: &Side) -> String {
    let left = (side.pool.floor().max(0.0) as usize).min(POOL);
    let colour = if left == 0 { RED } else { GREEN };
    let mut text = String::from("token pool at Collibra ");
    let _ = write!(
        text,
        "{colour}{}{PLAIN}{DIM}{}{PLAIN}",
        "●".repeat(left),
        "○".repeat(POOL - left)
    );
    text + &" ".repeat(WIDTH - 23 - POOL)
}

fn sums(side: &Side) -> String {
    let sum = total(&side.apps);
    let text = format!(
        "{} answered, {} tokens, {} x 429",
        sum.answered, side.tokens, side.rate_limited
    );
    format!("{text:WIDTH$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    fn scene() -> Scene {
        let app = |rate_limited, strip: &[Call]| App {
            answered: 40,
            rate_limited,
            failed: 0,
            strip: strip.iter().copied().collect::<VecDeque<_>>(),
        };
        let side = |title, app: App, rate_limited, pool| Side {
            title,
            apps: vec![app; 2],
            tokens: 7,
            rate_limited,
            pool,
        };
        let dry = app(3, &[Call::Answered, Call::RateLimited, Call::Failed]);
        let fine = app(0, &[Call::Answered; STRIP]);
        Scene {
            elapsed: Duration::from_millis(12_400),
            length: Duration::from_secs(30),
            speed: 20.0,
            own: side("each for itself", dry, 6, 0.3),
            proxied: side("behind the proxy", fine, 0, 4.7),
        }
    }

    /// The text without colours.
    fn plain(line: &str) -> String {
        let mut text = String::new();
        let mut parts = line.split('\x1b');
        text.push_str(parts.next().unwrap());
        for part in parts {
            text.push_str(part.split_once(['m', 'K']).unwrap().1);
        }
        text
    }

    #[test]
    fn the_sides_of_the_table_stand_under_each_other() {
        let lines: Vec<String> = table(&scene()).iter().map(|l| plain(l)).collect();
        let column = |line: &str, text: &str| {
            let at = line.find(text).unwrap();
            line[..at].chars().count()
        };
        let second = WIDTH + GAP.len();
        assert_eq!(column(&lines[3], "behind the proxy"), second);
        let app = lines[4].rfind("app 1").unwrap();
        assert_eq!(lines[4][..app].chars().count(), second);
        let pool = lines[7].rfind("token pool").unwrap();
        assert_eq!(lines[7][..pool].chars().count(), second);
        assert!(lines[7].contains("○○○○○") && lines[7].contains("●●●●○"));
        assert!(
            lines
                .iter()
                .all(|line| line.chars().count() <= 2 * WIDTH + 4)
        );
    }

    #[test]
    fn a_pipe_gets_plain_lines() {
        assert_eq!(
            line(&scene()),
            " 12 s | each for itself: 80 answered, 6 lost, 7 tokens, 6 x 429 \
             | behind the proxy: 80 answered, 0 lost, 7 tokens, 0 x 429"
        );
    }

    #[test]
    fn the_summary_compares_the_sides() {
        let text = summary(&scene());
        assert!(text.starts_with("12 s here, 4 minutes at Collibra, 2 apps on each side:"));
        assert!(
            text.contains("behind the proxy                80       0       7       0"),
            "{text}"
        );
    }
}

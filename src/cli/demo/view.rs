//! Renders the demo: a screen for a terminal, or lines for a pipe. Pure.

use std::fmt::Write as _;
use std::time::Duration;

use super::super::table::cut;
use super::super::terminal::Size;
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
    pub(super) addresses: Addresses,
}

/// Where the proxy can be watched and called.
#[derive(Clone, Debug, Default)]
pub(super) struct Addresses {
    pub(super) admin: Option<String>,
    pub(super) listener: Option<String>,
}

/// What can be called by hand.
const CALL: &str = "/rest/2.0/communities";

const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
const DIM: &str = "\x1b[2m";
const BOLD: &str = "\x1b[1m";
const PLAIN: &str = "\x1b[0m";
/// The gap between the two sides.
const GAP: usize = 4;

/// The widths of an app's name and of its failure count.
const NAME: usize = 7;
const LOST: usize = 10;

/// The narrowest side that fits its totals.
const NARROWEST: usize = 30;

/// The size of a full pool.
const POOL: usize = 5;

/// How many lines of the screen are not those of apps.
const OTHERS: usize = 11;

/// Renders the screen for a terminal of `size`, at least 64 columns wide.
pub(super) fn table(scene: &Scene, size: Size) -> Vec<String> {
    let bar = 40;
    let share = scene.elapsed.as_secs_f64() / scene.length.as_secs_f64().max(f64::EPSILON);
    let done = ((share * bar as f64).round() as usize).min(bar);
    let mut lines = vec![
        format!(
            "{BOLD}collibra-auth-proxy demo{PLAIN}  one second here is {} s at Collibra",
            scene.speed
        ),
        format!(
            "{}{DIM}{}{PLAIN} {} of {} s, q quits",
            "━".repeat(done),
            "─".repeat(bar - done),
            scene.elapsed.as_secs(),
            scene.length.as_secs()
        ),
        String::new(),
    ];
    lines.extend(sides(scene, size));
    lines.push(String::new());
    lines.push(format!(
        "{GREEN}▮{PLAIN} answered   {YELLOW}▮{PLAIN} no token: 429   {RED}▮{PLAIN} failed"
    ));
    lines.extend(addresses(&scene.addresses));
    lines
}

/// What there is to open and to call while the demo runs.
pub(super) fn addresses(addresses: &Addresses) -> Vec<String> {
    let open = addresses.admin.iter();
    let open = open.map(|admin| format!("open http://{admin}/   the proxy's status page"));
    let curl = addresses.listener.iter();
    let curl =
        curl.map(|listener| format!("curl http://{listener}{CALL}   a call without a token"));
    open.chain(curl).collect()
}

/// Both sides: their apps, as many as fit, and their sums.
pub(super) fn sides(scene: &Scene, size: Size) -> Vec<String> {
    let (own, proxied) = (&scene.own, &scene.proxied);
    let width = (size.columns.saturating_sub(GAP) / 2).clamp(NARROWEST, NAME + STRIP + LOST);
    let gap = " ".repeat(GAP);
    let mut lines = vec![format!(
        "{BOLD}{:width$}{PLAIN}{gap}{BOLD}{}{PLAIN}",
        own.title, proxied.title
    )];
    let all = own.apps.len();
    let room = size.rows.saturating_sub(OTHERS).max(2);
    let shown = if all > room { room - 1 } else { all };
    let both = own.apps.iter().zip(&proxied.apps).enumerate();
    for (index, (left, right)) in both.take(shown) {
        let row = |app| row(index, app, width);
        lines.push(format!("{}{gap}{}", row(left), row(right)));
    }
    if shown < all {
        let more = format!("{} more apps", all - shown);
        lines.push(format!("{DIM}{more:width$}{gap}{more}{PLAIN}"));
    }
    lines.push(String::new());
    lines.push(format!("{}{gap}{}", pool(own, width), pool(proxied, width)));
    lines.push(format!("{}{gap}{}", sums(own, width), sums(proxied, width)));
    lines
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

fn row(index: usize, app: &App, width: usize) -> String {
    let room = width.saturating_sub(NAME + LOST);
    let mut strip = String::new();
    let mut colour = "";
    let last = app.strip.len().saturating_sub(room);
    for call in app.strip.range(last..) {
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
    strip.push_str(&" ".repeat(room.saturating_sub(app.strip.len())));
    let lost = match app.lost() {
        0 => format!("{DIM}{:>5} lost{PLAIN}", 0),
        lost => format!("{RED}{lost:>5} lost{PLAIN}"),
    };
    format!("app {:<3}{strip}{lost}", index + 1)
}

fn pool(side: &Side, width: usize) -> String {
    let left = (side.pool.floor().max(0.0) as usize).min(POOL);
    let colour = if left == 0 { RED } else { GREEN };
    let label = "token pool at Collibra ";
    let mut text = String::from(label);
    let _ = write!(
        text,
        "{colour}{}{PLAIN}{DIM}{}{PLAIN}",
        "●".repeat(left),
        "○".repeat(POOL - left)
    );
    text + &" ".repeat(width.saturating_sub(label.len() + POOL))
}

fn sums(side: &Side, width: usize) -> String {
    let sum = total(&side.apps);
    let text = format!(
        "{} answered, {} tokens, {} x 429",
        sum.answered, side.tokens, side.rate_limited
    );
    format!("{:width$}", cut(&text, width))
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
            addresses: Addresses {
                admin: Some("127.0.0.1:9902".to_owned()),
                listener: Some("127.0.0.1:8080".to_owned()),
            },
        }
    }

    /// The text without colours.
    fn plain(line: &str) -> String {
        let mut text = String::new();
        let mut parts = line.split('\x1b');
        text.push_str(parts.next().unwrap());
        for part in parts {
            text.push_str(part.split_once('m').unwrap().1);
        }
        text
    }

    const USUAL: Size = Size {
        columns: 80,
        rows: 24,
    };

    fn lines(scene: &Scene, size: Size) -> Vec<String> {
        table(scene, size).iter().map(|line| plain(line)).collect()
    }

    #[test]
    fn the_sides_of_the_table_stand_under_each_other() {
        let lines = lines(&scene(), USUAL);
        let column = |line: &str, text: &str| {
            let at = line.rfind(text).unwrap();
            line[..at].chars().count()
        };
        let second = (80 - GAP) / 2 + GAP;
        assert_eq!(column(&lines[3], "behind the proxy"), second);
        assert_eq!(column(&lines[4], "app 1"), second);
        assert_eq!(column(&lines[7], "token pool"), second);
        assert!(lines[7].contains("○○○○○") && lines[7].contains("●●●●○"));
    }

    #[test]
    fn the_screen_is_not_left_however_many_apps_there_are() {
        for apps in [1, 2, 8, 13, 14, 64] {
            let mut scene = scene();
            for side in [&mut scene.own, &mut scene.proxied] {
                let mut app = side.apps[0].clone();
                app.strip = vec![Call::Answered; STRIP].into();
                side.apps = vec![app; apps];
            }
            for (columns, rows) in [(80, 24), (200, 50), (120, 40)] {
                let lines = lines(&scene, Size { columns, rows });
                assert!(lines.len() <= rows, "{apps} apps: {} lines", lines.len());
                let widest = lines.iter().map(|line| line.chars().count()).max();
                assert!(widest.unwrap() <= columns, "{apps} apps at {columns}");
                let shown = lines.iter().filter(|line| line.starts_with("app ")).count();
                let has_more = lines.iter().any(|line| line.contains(" more apps"));
                assert!(shown == apps || has_more && shown >= rows - OTHERS - 1);
            }
        }
    }

    #[test]
    fn what_to_open_and_to_call_is_said() {
        let said = addresses(&scene().addresses);
        assert!(
            said[0].starts_with("open http://127.0.0.1:9902/ "),
            "{said:?}"
        );
        assert!(
            said[1].starts_with("curl http://127.0.0.1:8080/rest/"),
            "{said:?}"
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

//! Renders the demo: a screen for a terminal, or lines for a pipe. Pure.

use std::time::Duration;

use super::apps::{App, Call, STRIP};
use crate::cli::table::cut;
use crate::cli::terminal::Size;

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

impl Side {
    /// The calls that succeeded, the calls that failed, the issued tokens, and the 429s.
    pub(super) fn figures(&self) -> [u64; 4] {
        let sum = |of: fn(&App) -> u64| self.apps.iter().map(of).sum();
        let (answered, lost) = (sum(|app| app.answered), sum(|app| app.lost));
        [answered, lost, self.tokens, self.rate_limited]
    }
}

/// Both sides at a moment.
#[derive(Clone, Debug)]
pub(super) struct Scene {
    pub(super) elapsed: Duration,
    pub(super) length: Duration,
    pub(super) speed: f64,
    /// Without the proxy, and with it.
    pub(super) sides: [Side; 2],
    /// What there is to open and to call.
    pub(super) addresses: Vec<String>,
}

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
    let (done, left) = ("━".repeat(done), "─".repeat(bar - done));
    let (elapsed, length) = (scene.elapsed.as_secs(), scene.length.as_secs());
    let speed = scene.speed;
    let mut lines = vec![
        format!("{BOLD}collibra-auth-proxy demo{PLAIN}  one second here is {speed} s at Collibra"),
        format!("{done}{DIM}{left}{PLAIN} {elapsed} of {length} s, q quits"),
        String::new(),
    ];
    lines.extend(sides(scene, size));
    lines.push(String::new());
    lines.push(format!(
        "{GREEN}▮{PLAIN} answered   {YELLOW}▮{PLAIN} no token: 429   {RED}▮{PLAIN} failed"
    ));
    lines.extend(scene.addresses.iter().cloned());
    lines
}

/// Both sides: their apps, as many as fit, and their sums.
pub(super) fn sides(scene: &Scene, size: Size) -> Vec<String> {
    let width = (size.columns.saturating_sub(GAP) / 2).clamp(NARROWEST, NAME + STRIP + LOST);
    let gap = " ".repeat(GAP);
    let both = |part: &dyn Fn(&Side) -> String| scene.sides.each_ref().map(part).join(&gap);
    let [own, proxied] = &scene.sides;
    let mut lines = vec![format!(
        "{BOLD}{:width$}{gap}{}{PLAIN}",
        own.title, proxied.title
    )];
    let all = own.apps.len();
    let room = size.rows.saturating_sub(OTHERS).max(2);
    let shown = if all > room { room - 1 } else { all };
    lines.extend((0..shown).map(|nth| both(&|side| row(nth, &side.apps[nth], width))));
    if shown < all {
        let more = format!("{} more apps", all - shown);
        lines.push(both(&|_| format!("{DIM}{more:width$}{PLAIN}")));
    }
    lines.push(String::new());
    lines.push(both(&|side| pool(side, width)));
    lines.push(both(&|side| sums(side, width)));
    lines
}

/// Renders one line for a pipe.
pub(super) fn line(scene: &Scene) -> String {
    let side = |side: &Side| {
        let (title, [answered, lost, tokens, limited]) = (side.title, side.figures());
        format!("{title}: {answered} answered, {lost} lost, {tokens} tokens, {limited} x 429")
    };
    let sides = scene.sides.each_ref().map(side).join(" | ");
    format!("{:>3} s | {sides}", scene.elapsed.as_secs())
}

/// The summary at the end.
pub(super) fn summary(scene: &Scene) -> String {
    let (elapsed, apps) = (scene.elapsed.as_secs(), scene.sides[0].apps.len());
    let at_collibra = scene.elapsed.mul_f64(scene.speed).as_secs_f64();
    let minutes = (at_collibra / 60.0).round();
    let mut text = format!(
        "{elapsed} s here, {minutes} minutes at Collibra, {apps} apps on each side:\n\n{:26}{:>10}{:>8}{:>8}{:>8}\n",
        "", "answered", "lost", "tokens", "429s",
    );
    for side in &scene.sides {
        let (title, [answered, lost, tokens, limited]) = (side.title, side.figures());
        text.push_str(&format!(
            "  {title:24}{answered:>10}{lost:>8}{tokens:>8}{limited:>8}\n"
        ));
    }
    text
}

fn row(index: usize, app: &App, width: usize) -> String {
    let room = width.saturating_sub(NAME + LOST);
    let recent = &app.strip[app.strip.len().saturating_sub(room)..];
    let runs = recent.chunk_by(|one, next| one == next).map(|run| {
        let colour = match run[0] {
            Call::Answered => GREEN,
            Call::RateLimited => YELLOW,
            Call::Failed => RED,
        };
        format!("{colour}{}", "▮".repeat(run.len()))
    });
    let strip: String = runs.collect();
    let blank = " ".repeat(room - recent.len());
    let colour = if app.lost == 0 { DIM } else { RED };
    format!(
        "app {:<3}{strip}{PLAIN}{blank}{colour}{:>5} lost{PLAIN}",
        index + 1,
        app.lost
    )
}

fn pool(side: &Side, width: usize) -> String {
    let left = (side.pool.floor().max(0.0) as usize).min(POOL);
    let colour = if left == 0 { RED } else { GREEN };
    let (full, empty) = ("●".repeat(left), "○".repeat(POOL - left));
    let label = "token pool at Collibra ";
    let blank = " ".repeat(width.saturating_sub(label.len() + POOL));
    format!("{label}{colour}{full}{PLAIN}{DIM}{empty}{PLAIN}{blank}")
}

fn sums(side: &Side, width: usize) -> String {
    let [answered, _, tokens, limited] = side.figures();
    let text = format!("{answered} answered, {tokens} tokens, {limited} x 429");
    format!("{:width$}", cut(&text, width))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scene() -> Scene {
        let app = |lost, strip: &[Call]| App {
            answered: 40,
            lost,
            strip: strip.to_vec(),
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
            sides: [
                side("each for itself", dry, 6, 0.3),
                side("behind the proxy", fine, 0, 4.7),
            ],
            addresses: vec!["open".to_owned(), "curl".to_owned()],
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
            for side in &mut scene.sides {
                let mut app = side.apps[0].clone();
                app.strip = vec![Call::Answered; STRIP];
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

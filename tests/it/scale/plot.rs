//! The figure of `docs/fleet.md`: three panels over the size of a fleet, with its own background,
//! so that it is readable on any page.

use std::fmt::Write;

use kit::svg::{line, text};

/// The values for a fleet of one size.
pub(crate) struct Point {
    pub(crate) proxies: f64,
    /// Per hour.
    pub(crate) tokens: f64,
    /// 429s an hour.
    pub(crate) refused: f64,
    /// Percent.
    pub(crate) without_token: f64,
}

const WIDTH: f64 = 800.0;
const LEFT: f64 = 86.0;
const RIGHT: f64 = 620.0;
const FIRST: f64 = 92.0;
const HEIGHT: f64 = 150.0;
const STEP: f64 = 224.0;
const LARGEST: f64 = 10_000.0;

const SHARED: &str = "#00664f";
const ALONE: &str = "#b8400e";

struct Panel {
    title: &'static str,
    ticks: &'static [(f64, &'static str)],
    value: fn(&Point) -> f64,
    /// The position of a value, from 0 at the bottom to 1 at the top.
    place: fn(f64) -> f64,
}

const PANELS: [Panel; 3] = [
    Panel {
        title: "Tokens taken from Collibra, an hour",
        ticks: &[(0.0, "0"), (20.0, "20"), (40.0, "40"), (60.0, "60")],
        value: |point| point.tokens,
        place: |tokens| tokens / 70.0,
    },
    Panel {
        title: "Requests that Collibra refuses with 429, an hour",
        ticks: &[
            (0.0, "0"),
            (10.0, "10"),
            (1_000.0, "1,000"),
            (100_000.0, "100,000"),
        ],
        value: |point| point.refused,
        // logarithmic, with a place for zero
        place: |refused| (1.0 + refused).log10() / 6.0,
    },
    Panel {
        title: "Share of the time in which a proxy has no token",
        ticks: &[
            (0.0, "0 %"),
            (25.0, "25 %"),
            (50.0, "50 %"),
            (75.0, "75 %"),
            (100.0, "100 %"),
        ],
        value: |point| point.without_token,
        place: |percent| percent / 105.0,
    },
];

/// The figure, as SVG 1.1.
pub(crate) fn svg(shared: &[Point], alone: &[Point]) -> String {
    let height = FIRST + STEP * PANELS.len() as f64 - 16.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"14\" fill=\"#1f2933\">\n\
         <title>One client of Collibra, shared by a fleet of proxies</title>\n\
         <rect x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"6\" fill=\"#ffffff\" stroke=\"#cbd2d9\"/>\n",
        WIDTH - 1.0,
        height - 1.0
    );
    text(
        &mut svg,
        (24.0, 34.0),
        "font-size=\"19\" font-weight=\"bold\"",
        "One client of Collibra, a fleet of proxies: a day, simulated",
    );
    text(
        &mut svg,
        (24.0, 56.0),
        "fill=\"#52606d\"",
        "Tokens of 299 s, a pool of 5 that gains one a minute. Sizes and 429s by powers of ten.",
    );
    for (nth, panel) in PANELS.iter().enumerate() {
        draw(&mut svg, panel, FIRST + STEP * nth as f64, [shared, alone]);
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw(svg: &mut String, panel: &Panel, top: f64, lines: [&[Point]; 2]) {
    let bottom = top + 14.0 + HEIGHT;
    let y = |value: f64| bottom - (panel.place)(value) * HEIGHT;
    text(svg, (24.0, top), "font-weight=\"bold\"", panel.title);
    for (value, label) in panel.ticks {
        let y = y(*value);
        line(svg, (LEFT, y), (RIGHT, y), "#e4e7eb");
        text(svg, (LEFT - 10.0, y + 5.0), "text-anchor=\"end\"", label);
    }
    for (proxies, label) in [
        (1.0, "1"),
        (10.0, "10"),
        (100.0, "100"),
        (1e3, "1,000"),
        (1e4, "10,000"),
    ] {
        let x = x(proxies);
        line(svg, (x, bottom), (x, bottom + 5.0), "#7b8794");
        text(svg, (x, bottom + 21.0), "text-anchor=\"middle\"", label);
    }
    line(svg, (LEFT, bottom), (RIGHT, bottom), "#7b8794");
    text(
        svg,
        (RIGHT + 34.0, bottom + 21.0),
        "fill=\"#52606d\"",
        "proxies",
    );
    let names = ["with a shared store", "each for itself"];
    for ((points, color), name) in lines.into_iter().zip([SHARED, ALONE]).zip(names) {
        let place = |point: &Point| (x(point.proxies), y((panel.value)(point)));
        let path: Vec<String> = points
            .iter()
            .map(place)
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2.5\"/>",
            path.join(" ")
        );
        for (x, y) in points.iter().map(place) {
            // distinguishable without colour too
            let _ = if color == SHARED {
                writeln!(
                    svg,
                    "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.5\" fill=\"{color}\"/>"
                )
            } else {
                let (x, y) = (x - 4.0, y - 4.0);
                writeln!(
                    svg,
                    "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"8\" height=\"8\" fill=\"#ffffff\" stroke=\"{color}\" stroke-width=\"2\"/>"
                )
            };
        }
        if let Some((x, y)) = points.last().map(place) {
            let style = format!("fill=\"{color}\" font-weight=\"bold\"");
            text(svg, (x + 14.0, y + 5.0), &style, name);
        }
    }
}

/// The position of a size; logarithmic.
fn x(proxies: f64) -> f64 {
    LEFT + 14.0 + proxies.log10() / LARGEST.log10() * (RIGHT - LEFT - 28.0)
}

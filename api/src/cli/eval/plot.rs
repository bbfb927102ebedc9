//! The report as a picture: an SVG of four groups of bars.

use std::path::Path;

use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::{index::Kept, report::Report};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Failure = Box<dyn std::error::Error>;

const SIZE: (u32, u32) = (1100, 760);
const FONT: &str = "sans-serif";
/// Told apart also by those who see fewer colours: Okabe and Ito's.
const COLOURS: [RGBColor; 3] = [RGBColor(0, 114, 178), RGBColor(230, 159, 0), RGBColor(0, 158, 115)];
/// Of the room of a group, what its bars take.
const BARS_SHARE: f64 = 0.8;

/// Bars in groups: a name and a value for each of `series`.
struct Bars<'a> {
    title: &'a str,
    series: &'a [&'a str],
    groups: Vec<(&'a str, Vec<f64>)>,
    /// Decimals of the values above the bars.
    decimals: usize,
}

pub(super) fn draw(report: &Report, path: &Path) -> Result<(), Failure> {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut panels = vec![quality(report), latency(report)];
    if !report.index.is_empty() {
        panels.extend([index_recall(report), index_latency(report)]);
    }
    let areas = root.split_evenly((panels.len().div_ceil(2), 2));
    for (area, panel) in areas.iter().zip(&panels) {
        draw_bars(area, panel)?;
    }
    root.present()?;
    Ok(())
}

fn quality(report: &Report) -> Bars<'_> {
    let modes = report.modes.iter().map(|(name, quality)| (*name, quality));
    let all = modes.chain(report.others.iter().map(|(name, quality)| (name.as_str(), quality)));
    Bars {
        title: "How good the first ten hits are",
        series: &["Recall@10", "MRR@10", "nDCG@10"],
        groups: all.map(|(name, q)| (name, vec![q.recall_at_10, q.mrr_at_10, q.ndcg_at_10])).collect(),
        decimals: 2,
    }
}

fn latency(report: &Report) -> Bars<'_> {
    let times = report.modes.iter().filter_map(|(name, quality)| Some((*name, quality.latency.as_ref()?)));
    Bars {
        title: "How long a search takes, ms",
        series: &["p50", "p95", "p99"],
        groups: times.map(|(name, l)| (name, vec![l.p50_ms, l.p95_ms, l.p99_ms])).collect(),
        decimals: 1,
    }
}

fn index_recall(report: &Report) -> Bars<'_> {
    Bars {
        title: "What the index finds of the true nearest ten",
        series: &["Recall@10"],
        groups: report.index.iter().map(|(name, kept)| (name.as_str(), vec![kept.recall_at_10])).collect(),
        decimals: 3,
    }
}

fn index_latency(report: &Report) -> Bars<'_> {
    let times = |kept: &Kept| vec![kept.latency.p50_ms, kept.latency.p99_ms, kept.latency_exact.p50_ms];
    Bars {
        title: "How long a search by meaning takes under filters, ms",
        series: &["p50", "p99", "p50 when all are compared"],
        groups: report.index.iter().map(|(name, kept)| (name.as_str(), times(kept))).collect(),
        decimals: 1,
    }
}

fn draw_bars(area: &Area<'_>, bars: &Bars<'_>) -> Result<(), Failure> {
    let highest = bars.groups.iter().flat_map(|(_, values)| values).copied().fold(0.0, f64::max);
    let top = if highest <= 1.0 { 1.0 } else { highest } * 1.12;
    let mut chart = ChartBuilder::on(area)
        .caption(bars.title, (FONT, 21))
        .margin(14)
        .x_label_area_size(54)
        .y_label_area_size(44)
        .build_cartesian_2d(0.0..bars.groups.len().max(1) as f64, 0.0..top)?;
    chart
        .configure_mesh()
        .label_style((FONT, 14))
        .disable_x_mesh()
        .disable_x_axis()
        .light_line_style(TRANSPARENT)
        .draw()?;
    let width = BARS_SHARE / bars.series.len() as f64;
    let centred =
        |size: i32| (FONT, size).into_font().into_text_style(area).pos(Pos::new(HPos::Center, VPos::Bottom));
    for at in 0..bars.series.len() {
        let colour = COLOURS[at % COLOURS.len()];
        let left = |group: usize| group as f64 + (1.0 - BARS_SHARE) / 2.0 + at as f64 * width;
        let values = || bars.groups.iter().enumerate().map(|(group, (_, values))| (left(group), values[at]));
        chart.draw_series(
            values().map(|(x, y)| Rectangle::new([(x, 0.0), (x + width * 0.94, y)], colour.filled())),
        )?;
        chart.draw_series(
            values().map(|(x, y)| {
                Text::new(format!("{y:.*}", bars.decimals), (x + width * 0.47, y), centred(13))
            }),
        )?;
    }
    for (group, (name, _)) in bars.groups.iter().enumerate() {
        let (x, y) = chart.backend_coord(&(group as f64 + 0.5, 0.0));
        let (left, top) = area.get_base_pixel();
        area.draw_text(name, &centred(16), (x - left, y - top + 18))?;
    }
    if bars.series.len() > 1 {
        draw_legend(area, bars.series)?;
    }
    Ok(())
}

/// Below everything, where no bar can stand in its way.
fn draw_legend(area: &Area<'_>, series: &[&str]) -> Result<(), Failure> {
    let (width, height) = area.dim_in_pixel();
    let style = (FONT, 16).into_font().into_text_style(area);
    let room = width as i32 / series.len() as i32;
    for (at, name) in series.iter().enumerate() {
        let (x, y) = (room * at as i32 + room / 4, height as i32 - 26);
        area.draw(&Rectangle::new([(x, y), (x + 10, y + 10)], COLOURS[at % COLOURS.len()].filled()))?;
        area.draw_text(name, &style, (x + 16, y))?;
    }
    Ok(())
}

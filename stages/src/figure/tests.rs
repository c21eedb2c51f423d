//! Properties of whole figures.

use super::{Axis, ColorBar, ColorMap, Figure, LegendEntry, Mark, Panel, Rgb, Row, Scale, Symbol, category, tms};
use crate::matrix::Matrix;

pub(crate) fn pentagon() -> Matrix {
    let angle = |j: usize| j as f32 * std::f32::consts::TAU / 5.0 + 0.3;
    Matrix::from_fn(2, 5, |i, j| 1.13 * if i == 0 { angle(j).cos() } else { angle(j).sin() })
}

/// One figure with everything in it.
fn gallery() -> Figure {
    let curve = |scale: f64, color: Rgb, dash| Mark::Line {
        points: (0..200).map(|i| (f64::from(i) * 50.0, scale * (-f64::from(i) / 30.0).exp() + 1e-3)).collect(),
        color,
        width: 1.0,
        dash,
    };
    let mut losses = Panel::new(
        "Stochastic reconstruction",
        Axis::new("step", Scale::Linear { min: 0.0, max: 10_000.0 }),
        Axis::new("loss", Scale::Log { min: 5e-4, max: 2.0 }),
    )
    .with(curve(1.0, category(0), super::Dash::Solid))
    .with(curve(0.5, category(1), super::Dash::Dashed));
    losses.legend = (0..2)
        .map(|i| LegendEntry {
            label: format!("seed {i}"),
            color: category(i),
            symbol: Symbol::Line(super::Dash::Solid),
        })
        .collect();
    let heat = Matrix::from_fn(5, 20, |r, c| if r == c { 1.0 } else { ((r * 7 + c * 3) % 10) as f32 / 40.0 });
    let mut heat = Panel::heat_map("linear1", heat, ColorMap::Blues, (0.0, 1.0));
    (heat.x.label, heat.y.label) = ("subcomponent".into(), "feature".into());
    let histogram = Panel::new(
        "Histogram",
        Axis::new("causal importance", Scale::Linear { min: 0.0, max: 1.0 }),
        Axis::new("count", Scale::Log { min: 0.7, max: 3e4 }),
    )
    .with(Mark::Bars {
        bars: (0..20).map(|i| (f64::from(i) / 20.0 + 0.025, 1e4 / f64::from(1 + i * i), category(0))).collect(),
        width: 0.048,
        base: 0.0,
    });
    let vectors = tms::vector_panel("Target", &tms::columns(&pentagon()), 1.13, tms::Labels::Shown);
    let mut figure = Figure::new(
        "Gallery",
        super::FULL_WIDTH,
        vec![
            Row { height: 100.0, panels: vec![Some(losses), Some(heat)] },
            Row { height: 100.0, panels: vec![Some(histogram), Some(vectors)] },
        ],
    );
    figure.has_letters = true;
    figure.color_bar = Some(ColorBar { map: ColorMap::Blues, range: (0.0, 1.0), label: "causal importance".into() });
    figure
}

/// Writes the figure where `SPDFLOW_SHOW_FIGURES` says, for looking at it.
fn show(name: &str, figure: &Figure) {
    if let Some(folder) = std::env::var_os("SPDFLOW_SHOW_FIGURES") {
        let mut summary = spdflow_engine::kind::Summary::default();
        figure.write(std::path::Path::new(&folder), name, &mut summary).unwrap();
    }
}

#[test]
fn equal_figures_give_equal_bytes() {
    show("gallery", &gallery());
    assert_eq!(gallery().to_svg(), gallery().to_svg());
    assert_eq!(gallery().to_png().unwrap(), gallery().to_png().unwrap());
}

#[test]
fn a_figure_needs_no_font_and_no_other_file() {
    let svg = gallery().to_svg();
    assert!(!svg.contains("<text") && !svg.contains("font"), "text is drawn as outlines");
    let references = svg.matches("href=\"").count();
    let inside = svg.matches("href=\"#").count() + svg.matches("href=\"data:").count();
    assert_eq!(references, inside);
}

#[test]
fn heat_map_cells_are_sharp_in_the_png() {
    // A chessboard: with smoothing there would be many greys inside the frame.
    let board = Matrix::from_fn(4, 4, |r, c| ((r + c) % 2) as f32);
    let mut panel = Panel::heat_map("", board, ColorMap::Blues, (0.0, 1.0));
    panel.frame = super::Frame::Hidden;
    (panel.x.ticks, panel.y.ticks) = (super::Ticks::Hidden, super::Ticks::Hidden);
    let png = Figure::single("board", 100.0, 86.0, panel).to_png().unwrap();
    let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    let colors: Vec<&[u8]> = pixels[..info.buffer_size()].chunks_exact(3).collect();
    let dark = ColorMap::Blues.at(1.0);
    let is_pure = |pixel: &[u8]| pixel == [255; 3] || pixel == [dark.0, dark.1, dark.2];
    let mixed = colors.iter().filter(|pixel| !is_pure(pixel)).count();
    assert!(colors.iter().any(|pixel| **pixel == [dark.0, dark.1, dark.2]));
    // Only pixels on the border of the image may be mixed: four sides of about 240 pixels, two deep.
    assert!(mixed < 4 * 240 * 2, "{mixed} of {} pixels are mixed", colors.len());
}

#[test]
fn the_edges_of_the_png_are_white() {
    let png = gallery().to_png().unwrap();
    let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    let width = info.width as usize * 3;
    assert!(pixels[..info.buffer_size()].rchunks_exact(width).next().unwrap().iter().all(|value| *value == 255));
    assert!(pixels[..info.buffer_size()].chunks_exact(width).all(|row| row[width - 3..] == [255; 3]));
}

#[test]
fn figures_of_a_target_can_be_drawn() {
    let weight = pentagon();
    let outputs = Matrix::from_fn(5, 5, |r, c| if r == c { 0.72 - 0.09 * r as f32 } else { 0.0 });
    for (name, figure) in [
        ("polygon", tms::polygon(&weight)),
        ("feature_representation", tms::feature_representation(&outputs)),
        ("cosine_similarity_distribution", tms::cosine_similarity_distribution(&weight)),
    ] {
        show(name, &figure);
        assert!(!figure.to_png().unwrap().is_empty());
    }
}

#[test]
fn empty_data_still_makes_a_figure() {
    let panel = Panel::heat_map("", Matrix::zeros(0, 0), ColorMap::Diverging, (-1.0, 1.0));
    let line = Mark::Line { points: vec![(0.0, f64::NAN)], color: category(0), width: 1.0, dash: super::Dash::Dotted };
    let curve = Panel::new("", Axis::new("x", Scale::fit_linear([])), Axis::new("y", Scale::fit_log([]))).with(line);
    let row = Row { height: 50.0, panels: vec![Some(panel), Some(curve), None] };
    assert!(!Figure::new("empty", 200.0, vec![row]).to_png().unwrap().is_empty());
}

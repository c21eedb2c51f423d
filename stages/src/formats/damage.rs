//! Damage: whatever happens to a file, a comparison ends with an answer, and never says "the same" of files that mean
//! something else.

use std::fs;
use std::path::Path;

use spdflow_engine::audit::format::Tolerance;

use super::formats;
use crate::artifact::tables::{self, Column};
use crate::artifact::tensors::{self, Tensor};
use crate::figure::{Axis, Figure, Mark, Panel, Rgb, Scale};

/// Compares a file with each that differs from it by a bit, or was cut off, or is longer. Where the format finds no
/// difference, `meaning` has to find none either; it reads the file by other means.
fn damage<T: PartialEq + std::fmt::Debug>(format: &str, whole: &[u8], bits: usize, meaning: impl Fn(&[u8]) -> T) {
    let original = meaning(whole);
    let folder = tempfile::tempdir().unwrap();
    let [left, right] = ["left", "right"].map(|name| folder.path().join(name));
    fs::write(&left, whole).unwrap();
    let known = formats().get(format);
    let check = |damaged: &[u8], what: String| {
        fs::write(&right, damaged).unwrap();
        let is_same = |recorded, made| matches!(known.compare(recorded, made, Tolerance::EXACT), Ok(None));
        if is_same(&left, &right) {
            assert_eq!(meaning(damaged), original, "{format}: {what}");
        }
        // The other way round, and read for its numbers: no panic.
        assert_eq!(is_same(&right, &left), is_same(&left, &right), "{format}: {what}");
        drop(known.quotes(&right));
    };
    let stride = (whole.len() * 8).div_ceil(bits).max(1);
    for bit in (0..whole.len() * 8).step_by(stride) {
        let mut damaged = whole.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        check(&damaged, format!("bit {} of byte {}", bit % 8, bit / 8));
    }
    for length in (0..whole.len()).step_by((whole.len() / 200).max(1)) {
        check(&whole[..length], format!("cut off at {length}"));
    }
    check(&[whole, b"\0"].concat(), "a byte more".to_owned());
}

fn read_back<T>(bytes: &[u8], read: impl FnOnce(&Path) -> T) -> T {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, bytes).unwrap();
    read(&path)
}

#[test]
fn damaged_tensors_are_never_the_same() {
    let tensors = [
        ("a.weight", Tensor::new(vec![2, 3], vec![1.0, -0.0, 3.5, f32::NAN, 5.0, f32::INFINITY])),
        ("b", Tensor::new(vec![], vec![7.5])),
        ("empty", Tensor::new(vec![0, 4], vec![])),
    ];
    let whole = tensors::to_bytes(tensors.iter().map(|(name, tensor)| (*name, tensor))).unwrap();
    damage("safetensors", &whole, usize::MAX, |bytes| {
        let read = read_back(bytes, tensors::read).unwrap();
        let bits = |tensor: &Tensor| tensor.data.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        let all: Vec<_> =
            read.iter().map(|(name, tensor)| (name.to_owned(), tensor.shape.clone(), bits(tensor))).collect();
        all
    });
}

#[test]
fn damaged_tables_are_never_the_same() {
    let rows = 100;
    let columns = [
        ("step", Column::Int64((0..rows).map(|row| row / 3 * 100).collect())),
        ("name", Column::Text((0..rows).map(|row| format!("train/loss/{}", row % 3)).collect())),
        ("value", Column::Float64((0..rows).map(|row| (row as f64).sin()).collect())),
        ("cluster", Column::OptionalInt32((0..rows).map(|row| (row % 4 > 0).then_some(row as i32)).collect())),
        ("lower", Column::Float32((0..rows).map(|row| (row as f32).cos()).collect())),
        ("alive", Column::Bool((0..rows).map(|row| row % 5 == 0).collect())),
    ];
    let whole = tables::to_bytes(&columns).unwrap();
    damage("parquet", &whole, 4000, |bytes| {
        let table = read_back(bytes, tables::read).unwrap();
        let doubles: Vec<u64> = table.float64("value").unwrap().iter().map(|value| value.to_bits()).collect();
        let singles: Vec<u32> = table.float32("lower").unwrap().iter().map(|value| value.to_bits()).collect();
        let names = table.text("name").unwrap().to_vec();
        let steps = table.int64("step").unwrap().to_vec();
        let clusters = table.optional_int32("cluster").unwrap().to_vec();
        (names, steps, doubles, singles, clusters, table.bool("alive").unwrap().to_vec())
    });
}

#[test]
fn damaged_documents_are_never_the_same() {
    let json =
        br#"{"metrics": [{"name": "loss", "value": 0.125}, {"name": "n", "value": 3}], "ok": [true, null, "\u00fc"]}"#;
    damage("json", json, usize::MAX, |bytes| serde_json::from_slice::<serde_json::Value>(bytes).unwrap().to_string());
    for format in ["text", "jsonl", "svg", "html"] {
        let text = b"<a>{\"step\": 3}</a>\n{\"step\": 4, \"loss\": \"\xc3\xbc\"}\n<!-- x = 3 -->\n";
        damage(format, text, usize::MAX, <[u8]>::to_vec);
    }
}

#[test]
fn damaged_images_are_never_the_same() {
    let axis = || Axis::new("x", Scale::Linear { min: 0.0, max: 1.0 });
    let dots = Mark::Points { points: vec![(0.5, 0.5)], color: Rgb::BLUE, radius: 9.0, opacity: 1.0 };
    let whole = Figure::single("Dots", 60.0, 20.0, Panel::new("", axis(), axis()).with(dots)).to_png().unwrap();
    damage("png", &whole, 3000, |bytes| {
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        (info.width, info.height, info.color_type, pixels)
    });
}

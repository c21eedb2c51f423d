//! Safetensors files, tensor by tensor.
//!
//! Both files are read once from beginning to end, a piece at a time: what is equal is seen in the bytes, and only
//! pieces that differ are looked at number by number.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use spdflow_engine::audit::format::{Difference, Format, Tolerance, Unreadable};

use super::metadata::compare_metadata;
use super::number::Number;
use super::reading::unreadable;
use super::tally::{Site, Tally};

/// How much of a tensor is read at once: a multiple of the width of every type.
const PIECE: usize = 1 << 20;

/// The longest header that the format allows.
const LONGEST_HEADER: u64 = 100_000_000;

/// Named tensors. A tolerance is for floats; all else has to be equal.
#[derive(Debug, Clone, Copy)]
pub struct SafeTensors;

impl Format for SafeTensors {
    fn compare(&self, recorded: &Path, made: &Path, tolerance: Tolerance) -> Result<Option<Difference>, Unreadable> {
        let (mut recorded, mut made) = (Tensors::open(recorded, true)?, Tensors::open(made, false)?);
        let mut tally = Tally::new(tolerance);
        let mut alike = Vec::new();
        for name in &recorded.names {
            match (recorded.header.info(name), made.header.info(name)) {
                (Some(before), Some(after)) if (before.dtype, &before.shape) == (after.dtype, &after.shape) => {
                    alike.push((name.clone(), before.clone(), after.data_offsets.0));
                }
                (before, after) => other_tensor(&mut tally, name, before, after),
            }
        }
        for name in made.names.iter().filter(|name| recorded.header.info(name).is_none()) {
            other_tensor(&mut tally, name, None, made.header.info(name));
        }
        for (name, info, begin) in alike {
            tally.expect(elements(&info));
            values(&mut tally, &name, &info, (&mut recorded, info.data_offsets.0), (&mut made, begin))?;
        }
        let texts = |tensors: &Tensors| {
            let texts = tensors.header.metadata().iter().flatten();
            texts.map(|(key, text)| (key.clone(), text.clone())).collect()
        };
        compare_metadata(&texts(&recorded), &texts(&made), &mut tally);
        Ok(tally.finish())
    }
}

/// A file whose header was read.
struct Tensors {
    file: File,
    header: Metadata,
    /// In the order of the file.
    names: Vec<String>,
    /// Where the tensors begin.
    begin: u64,
    is_recorded: bool,
}

impl Tensors {
    fn open(path: &Path, is_recorded: bool) -> Result<Self, Unreadable> {
        let damaged = |reason: String| Unreadable { is_recorded, reason };
        let mut file = File::open(path).map_err(unreadable(is_recorded))?;
        let length = file.metadata().map_err(unreadable(is_recorded))?.len();
        let mut size = [0; 8];
        let too_short = || damaged(format!("no safetensors file: {length} bytes, which is too short for a header"));
        match file.read_exact(&mut size) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(too_short()),
            read => read.map_err(unreadable(is_recorded))?,
        }
        let size = u64::from_le_bytes(size);
        if size > LONGEST_HEADER {
            return Err(damaged(format!("no safetensors file: a header of {size} bytes, more than the format allows")));
        }
        if size + 8 > length {
            return Err(too_short());
        }
        let mut header = vec![0; usize::try_from(size).map_err(unreadable(is_recorded))?];
        file.read_exact(&mut header).map_err(unreadable(is_recorded))?;
        let header: Metadata =
            serde_json::from_slice(&header).map_err(|error| damaged(format!("no safetensors header: {error}")))?;
        let (begin, data) = (size + 8, header.data_len() as u64);
        if begin + data != length {
            let found = length - begin;
            return Err(damaged(format!("{found} bytes of tensors, expected {data} by the header")));
        }
        let names = header.offset_keys();
        Ok(Self { file, header, names, begin, is_recorded })
    }

    /// Reads the bytes from `place` of the tensors on.
    fn read(&mut self, place: usize, bytes: &mut [u8]) -> Result<(), Unreadable> {
        let mut read = || {
            self.file.seek(SeekFrom::Start(self.begin + place as u64))?;
            self.file.read_exact(bytes)
        };
        read().map_err(unreadable(self.is_recorded))
    }
}

fn elements(info: &TensorInfo) -> u64 {
    // The header was checked: the product is that of the file's own bytes, or zero.
    info.shape.iter().map(|length| *length as u64).product()
}

/// Takes note of a tensor that only one file has, or that has another type or shape.
fn other_tensor(tally: &mut Tally, name: &str, recorded: Option<&TensorInfo>, made: Option<&TensorInfo>) {
    let shown = |info: Option<&TensorInfo>| {
        info.map_or("nothing".to_owned(), |info| format!("{:?} {:?}", info.dtype, info.shape))
    };
    let count = [recorded, made].into_iter().flatten().map(elements).max().unwrap_or(0);
    tally.expect(count);
    let site = Site { part: name, step: None };
    tally.structure(site, count, || (format!("tensor `{name}`"), shown(recorded), shown(made)));
}

/// Compares the values of a tensor that begins at one place of one file and at another of the other.
fn values(
    tally: &mut Tally,
    name: &str,
    info: &TensorInfo,
    (recorded, begin): (&mut Tensors, usize),
    (made, other_begin): (&mut Tensors, usize),
) -> Result<(), Unreadable> {
    let length = info.data_offsets.1 - info.data_offsets.0;
    let mut pieces = (vec![0; length.min(PIECE)], vec![0; length.min(PIECE)]);
    let width = width(info.dtype);
    for start in (0..length).step_by(PIECE) {
        let size = PIECE.min(length - start);
        let (before, after) = (&mut pieces.0[..size], &mut pieces.1[..size]);
        recorded.read(begin + start, before)?;
        made.read(other_begin + start, after)?;
        if before == after {
            continue;
        }
        for (i, (left, right)) in before.chunks_exact(width).zip(after.chunks_exact(width)).enumerate() {
            if left == right {
                continue;
            }
            let site = Site { part: name, step: None };
            let place = || place(name, info, (start + i * width) as u64);
            match (number(info.dtype, left), number(info.dtype, right)) {
                (Some(left), Some(right)) => tally.numbers(site, place, left, right),
                _ => tally.values(site, count(info.dtype), false, || (place(), shown(left), shown(right))),
            }
        }
    }
    Ok(())
}

/// Returns how many bytes are compared at once: those of an element, or one that holds several.
fn width(dtype: Dtype) -> usize {
    (dtype.bitsize() / 8).max(1)
}

/// Returns how many elements such bytes hold.
fn count(dtype: Dtype) -> u64 {
    if dtype.bitsize() < 8 { (8 / dtype.bitsize()) as u64 } else { 1 }
}

/// Returns where an element stands: the tensor and the indices of the element whose bytes begin at `byte`.
fn place(name: &str, info: &TensorInfo, byte: u64) -> String {
    let mut rest = byte * 8 / info.dtype.bitsize() as u64;
    let mut indices = vec![0; info.shape.len()];
    for (index, length) in indices.iter_mut().zip(&info.shape).rev() {
        (*index, rest) = (rest % *length as u64, rest / *length as u64);
    }
    let mut text = format!("tensor `{name}`");
    if !indices.is_empty() {
        write!(text, " at {indices:?}").expect("writing to a string");
    }
    text
}

/// Returns an element as a number; `None` for types that have no meaning here but their bits.
fn number(dtype: Dtype, bytes: &[u8]) -> Option<Number> {
    let mut wide = [0; 16];
    wide[..bytes.len()].copy_from_slice(bytes);
    let unsigned = u128::from_le_bytes(wide);
    let unused = 128 - 8 * bytes.len();
    let signed = ((unsigned << unused) as i128) >> unused;
    Some(match dtype {
        Dtype::F16 => Number::Half(unsigned as u16),
        Dtype::BF16 => Number::Brain(unsigned as u16),
        Dtype::F32 => Number::Single(f32::from_bits(unsigned as u32)),
        Dtype::F64 => Number::Double(f64::from_bits(unsigned as u64)),
        Dtype::U8 | Dtype::U16 | Dtype::U32 | Dtype::U64 => Number::Integer(unsigned as i128),
        Dtype::I8 | Dtype::I16 | Dtype::I32 | Dtype::I64 => Number::Integer(signed),
        _ => return None,
    })
}

fn shown(bytes: &[u8]) -> String {
    bytes.iter().rev().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::testing;
    use safetensors::tensor::TensorView;

    type Entry<'a> = (&'a str, Dtype, &'a [usize], Vec<u8>);

    fn file(tensors: &[Entry<'_>], texts: &[(&str, &str)]) -> Vec<u8> {
        let views = tensors
            .iter()
            .map(|(name, dtype, shape, data)| (*name, TensorView::new(*dtype, shape.to_vec(), data).unwrap()));
        let texts = texts.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
        safetensors::serialize(views, Some(texts)).unwrap()
    }

    fn singles(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn compared(recorded: &[u8], made: &[u8], tolerance: Tolerance) -> Option<String> {
        testing::compared("safetensors", recorded, made, tolerance).unwrap()
    }

    fn exactly(recorded: &[u8], made: &[u8]) -> Option<String> {
        compared(recorded, made, Tolerance::EXACT)
    }

    fn one(shape: &[usize], values: &[f32]) -> Vec<u8> {
        file(&[("w", Dtype::F32, shape, singles(values))], &[])
    }

    #[test]
    fn equal_tensors_are_equal_wherever_they_lie_in_the_file() {
        let recorded =
            file(&[("a", Dtype::F32, &[1], singles(&[1.0])), ("b", Dtype::F32, &[0], vec![])], &[("k", "v")]);
        assert_eq!(exactly(&recorded, &recorded), None);
        let text = r#"{"b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
            "a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}"#;
        let mut made = (text.len() as u64).to_le_bytes().to_vec();
        made.extend(text.as_bytes());
        made.extend(singles(&[2.0, 1.0]));
        let recorded = file(&[("a", Dtype::F32, &[1], singles(&[1.0])), ("b", Dtype::F32, &[1], singles(&[2.0]))], &[]);
        assert_eq!(exactly(&recorded, &made), None);
    }

    #[test]
    fn the_first_element_that_differs_is_named_by_its_indices() {
        let (recorded, made) =
            (one(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 0.1, 6.0]), one(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 0.2, 5.0]));
        assert_eq!(
            exactly(&recorded, &made).unwrap(),
            "tensor `w` at [1, 1]: 0.1, now 0.2; 2 of 6 differ, \
             by at most 1.000e0 (1.000e0 of the value, 8388608 ULP)"
        );
        let (recorded, made) = (one(&[], &[1.0]), one(&[], &[f32::from_bits(1.0_f32.to_bits() + 3)]));
        assert_eq!(
            exactly(&recorded, &made).unwrap(),
            "tensor `w`: 1.0, now 1.0000004; 1 of 1 differ, by at most 3.576e-7 (3.576e-7 of the value, 3 ULP)"
        );
    }

    #[test]
    fn tensors_larger_than_a_piece_are_read_to_their_end() {
        let mut values = vec![0.5; PIECE / 4 + 7];
        let recorded = one(&[values.len()], &values);
        *values.last_mut().unwrap() = 0.25;
        let found = exactly(&recorded, &one(&[values.len()], &values)).unwrap();
        assert!(found.starts_with(&format!("tensor `w` at [{}]: 0.5, now 0.25; 1 of", PIECE / 4 + 6)), "{found}");
    }

    #[test]
    fn names_types_and_shapes_come_before_values() {
        let whole = |name| (name, Dtype::F32, &[2_usize, 3][..], singles(&[0.0; 6]));
        let recorded = file(&[whole("a"), whole("b"), whole("c"), whole("d")], &[]);
        let ones = ("a", Dtype::F32, &[2_usize, 3][..], singles(&[1.0; 6]));
        let turned = ("c", Dtype::F32, &[3_usize, 2][..], singles(&[0.0; 6]));
        let cast = ("d", Dtype::I32, &[2_usize, 3][..], vec![0; 24]);
        let made = file(&[ones, turned, cast, whole("e")], &[]);
        let found = testing::difference("safetensors", &recorded, &made, Tolerance::EXACT).unwrap().unwrap();
        // In the order of the file, which puts the wide types first and then goes by name.
        assert_eq!((&*found.place, &*found.recorded, &*found.made), ("tensor `b`", "F32 [2, 3]", "nothing"));
        assert_eq!((found.count, found.total), (30, 30));
        assert_eq!(found.parts, ["b", "c", "d", "e", "a"]);
        let made = file(&[("w", Dtype::F32, &[3, 2], singles(&[0.0; 6]))], &[]);
        assert_eq!(
            exactly(&one(&[2, 3], &[0.0; 6]), &made).unwrap(),
            "tensor `w`: F32 [2, 3], now F32 [3, 2]; 6 of 6 differ"
        );
        let made = file(&[("w", Dtype::U32, &[2, 3], vec![0; 24])], &[]);
        assert_eq!(
            exactly(&one(&[2, 3], &[0.0; 6]), &made).unwrap(),
            "tensor `w`: F32 [2, 3], now U32 [2, 3]; 6 of 6 differ"
        );
    }

    #[test]
    fn small_differences_are_within_a_tolerance_and_a_large_one_is_named_first() {
        let near = Tolerance { absolute: 0.01, relative: 0.0 };
        let recorded = one(&[3], &[1.0, 2.0, 3.0]);
        let found = testing::difference("safetensors", &recorded, &one(&[3], &[1.001, 2.0, 3.0]), near);
        let found = found.unwrap().unwrap();
        assert!(found.is_within);
        assert_eq!((&*found.place, found.count), ("tensor `w` at [0]", 1));
        let found = testing::difference("safetensors", &recorded, &one(&[3], &[1.001, 2.0, 3.5]), near);
        let found = found.unwrap().unwrap();
        assert!(!found.is_within);
        assert_eq!((&*found.place, found.count), ("tensor `w` at [2]", 2));
    }

    #[test]
    fn a_nan_equals_a_nan_of_the_same_bits_or_any_within_a_tolerance() {
        let (quiet, other) = (f32::NAN, f32::from_bits(0x7fc0_0001));
        assert_eq!(exactly(&one(&[1], &[quiet]), &one(&[1], &[quiet])), None);
        assert_eq!(
            exactly(&one(&[1], &[quiet]), &one(&[1], &[other])).unwrap(),
            "tensor `w` at [0]: NaN (0x7fc00000), now NaN (0x7fc00001); 1 of 1 differ, \
             by at most 0.000e0 (0.000e0 of the value, 0 ULP)"
        );
        let near = Tolerance { absolute: 1.0, relative: 1.0 };
        let within = |left: f32, right: f32| {
            testing::difference("safetensors", &one(&[1], &[left]), &one(&[1], &[right]), near)
                .unwrap()
                .unwrap()
                .is_within
        };
        assert!(within(quiet, other));
        assert!(!within(quiet, 1.0) && !within(1.0, quiet));
    }

    #[test]
    fn every_type_is_compared_in_its_own_precision() {
        let cases: [(Dtype, &[u8], &[u8], &str); 11] = [
            (
                Dtype::F16,
                &[0x00, 0x3c],
                &[0x01, 0x3c],
                "1.0, now 1.0009765625; 1 of 1 differ, by at most 9.766e-4 (9.766e-4 of the value, 1 ULP)",
            ),
            (
                Dtype::BF16,
                &[0x80, 0x3f],
                &[0x81, 0x3f],
                "1.0, now 1.0078125; 1 of 1 differ, by at most 7.812e-3 (7.812e-3 of the value, 1 ULP)",
            ),
            (
                Dtype::F64,
                &[0, 0, 0, 0, 0, 0, 0xf0, 0x3f],
                &[1, 0, 0, 0, 0, 0, 0xf0, 0x3f],
                "1.0, now 1.0000000000000002; 1 of 1 differ, by at most 2.220e-16 (2.220e-16 of the value, 1 ULP)",
            ),
            (Dtype::I8, &[0xff], &[0x01], "-1, now 1; 1 of 1 differ, by at most 2.000e0 (2.000e0 of the value, 2 ULP)"),
            (
                Dtype::U8,
                &[0xff],
                &[0x01],
                "255, now 1; 1 of 1 differ, by at most 2.540e2 (9.961e-1 of the value, 254 ULP)",
            ),
            (
                Dtype::I16,
                &[0xff, 0xff],
                &[0, 0],
                "-1, now 0; 1 of 1 differ, by at most 1.000e0 (1.000e0 of the value, 1 ULP)",
            ),
            (
                Dtype::U16,
                &[0, 1],
                &[0, 0],
                "256, now 0; 1 of 1 differ, by at most 2.560e2 (1.000e0 of the value, 256 ULP)",
            ),
            (
                Dtype::I64,
                &[0xff; 8],
                &[0; 8],
                "-1, now 0; 1 of 1 differ, by at most 1.000e0 (1.000e0 of the value, 1 ULP)",
            ),
            (
                Dtype::U64,
                &[0xff; 8],
                &[0; 8],
                "18446744073709551615, now 0; 1 of 1 differ, by at most 1.845e19 \
                 (1.000e0 of the value, 18446744073709551615 ULP)",
            ),
            (Dtype::BOOL, &[1], &[0], "0x01, now 0x00; 1 of 1 differ"),
            (Dtype::F8_E4M3, &[0x38], &[0x39], "0x38, now 0x39; 1 of 1 differ"),
        ];
        // Whole numbers have to be equal, and so do bits without a meaning.
        let near = Tolerance { absolute: 1e30, relative: 0.0 };
        for (dtype, recorded, made, expected) in cases {
            let of = |bytes: &[u8]| file(&[("w", dtype, &[1], bytes.to_vec())], &[]);
            let (recorded, made) = (of(recorded), of(made));
            assert_eq!(exactly(&recorded, &made).unwrap(), format!("tensor `w` at [0]: {expected}"), "{dtype:?}");
            let is_float = matches!(dtype, Dtype::F16 | Dtype::BF16 | Dtype::F64);
            let found = testing::difference("safetensors", &recorded, &made, near).unwrap().unwrap();
            assert_eq!(found.is_within, is_float, "{dtype:?}");
        }
        let of = |byte| file(&[("w", Dtype::F4, &[4], vec![0, byte])], &[]);
        assert_eq!(exactly(&of(1), &of(2)).unwrap(), "tensor `w` at [2]: 0x01, now 0x02; 2 of 4 differ");
    }

    #[test]
    fn the_texts_of_the_file_are_compared_last() {
        let of = |value: f32, texts: &[(&str, &str)]| file(&[("w", Dtype::F32, &[1], singles(&[value]))], texts);
        assert_eq!(
            exactly(&of(1.0, &[("format", "pt")]), &of(1.0, &[("format", "np")])).unwrap(),
            "metadata `format`: \"pt\", now \"np\"; 1 of 2 differ"
        );
        assert_eq!(
            exactly(&of(1.0, &[]), &of(1.0, &[("format", "np")])).unwrap(),
            "metadata `format`: nothing, now \"np\"; 1 of 2 differ"
        );
        let found = exactly(&of(1.0, &[("format", "pt")]), &of(2.0, &[])).unwrap();
        assert!(found.starts_with("tensor `w` at [0]: 1.0, now 2.0; 2 of 2 differ"), "{found}");
    }

    #[test]
    fn files_that_are_cut_off_or_too_long_are_unreadable() {
        let whole = one(&[2], &[1.0, 2.0]);
        let reason =
            |bytes: &[u8]| testing::compared("safetensors", &whole, bytes, Tolerance::EXACT).unwrap_err().to_string();
        assert_eq!(reason(b"abc"), "the file made anew: no safetensors file: 3 bytes, which is too short for a header");
        assert_eq!(
            reason(&whole[..whole.len() - 1]),
            "the file made anew: 7 bytes of tensors, expected 8 by the header"
        );
        assert_eq!(
            reason(&[&whole[..], b"x"].concat()),
            "the file made anew: 9 bytes of tensors, expected 8 by the header"
        );
        assert_eq!(
            reason(&[0xff; 20]),
            "the file made anew: no safetensors file: a header of 18446744073709551615 bytes, more than the format allows"
        );
        let error = testing::compared("safetensors", &whole[..30], &whole, Tolerance::EXACT).unwrap_err();
        assert!(error.is_recorded);
    }
}

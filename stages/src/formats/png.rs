//! PNG images, pixel by pixel: how they were compressed and what else the files say does not count.

use std::io::Cursor;
use std::path::Path;

use png::{BitDepth, ColorType, Decoder, DecodingError, Limits, Transformations};
use spdflow_engine::audit::format::{Bytes, Difference, Format, Largest, Tolerance, Unreadable};

use super::reading;
use super::tally::{Site, Tally};

/// The largest image that is compared, in bytes of its pixels.
const LARGEST: usize = 1 << 30;

/// The whole image, or all of its pixels.
const WHOLE: Site<'_> = Site { part: "", step: None };

/// Images. `Tolerance::absolute` is in steps of a channel, which has 255; `relative` means nothing for colours.
///
/// Images with a palette are compared by their colours. Animations are compared byte by byte.
#[derive(Debug, Clone, Copy)]
pub struct Png;

impl Format for Png {
    fn compare(&self, recorded: &Path, made: &Path, tolerance: Tolerance) -> Result<Option<Difference>, Unreadable> {
        let (before, after) = reading::both(recorded, made)?;
        if before == after {
            return Ok(None);
        }
        let (before, after) = (Image::read(&before, true)?, Image::read(&after, false)?);
        if before.is_animated || after.is_animated {
            return Bytes.compare(recorded, made, tolerance);
        }
        let mut tally = Tally::new(tolerance);
        if before.size == after.size && before.color == after.color {
            compare_pixels(&before, &after, tolerance.absolute, &mut tally);
        } else {
            let count = before.count().max(after.count());
            tally.expect(count);
            tally.structure(WHOLE, count, || ("the image".to_owned(), before.shape(), after.shape()));
        }
        Ok(tally.finish())
    }
}

/// An image whose pixels were read.
struct Image {
    /// Width and height.
    size: (u32, u32),
    color: (ColorType, BitDepth),
    /// Row by row; samples of 16 bits begin with the upper byte.
    samples: Vec<u8>,
    is_animated: bool,
}

impl Image {
    fn read(bytes: &[u8], is_recorded: bool) -> Result<Self, Unreadable> {
        Self::decode(bytes)
            .map_err(|error| Unreadable { is_recorded, reason: format!("not an image that can be read: {error}") })
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodingError> {
        let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), Limits { bytes: LARGEST });
        decoder.set_transformations(Transformations::EXPAND);
        let mut reader = decoder.read_info()?;
        let length = reader.output_buffer_size().filter(|length| *length <= LARGEST);
        let mut samples = vec![0; length.ok_or(DecodingError::LimitsExceeded)?];
        reader.next_frame(&mut samples)?;
        // To the end: a file that was cut off there is damaged.
        reader.finish()?;
        let is_animated = reader.info().animation_control.is_some();
        Ok(Self { size: reader.info().size(), color: reader.output_color_type(), samples, is_animated })
    }

    fn count(&self) -> u64 {
        u64::from(self.size.0) * u64::from(self.size.1)
    }

    fn shape(&self) -> String {
        let (color, depth) = self.color;
        format!("{} x {} pixels, {color:?}, {} bits a channel", self.size.0, self.size.1, depth as u8)
    }

    /// Returns how many bytes a pixel takes.
    fn pixel_width(&self) -> usize {
        self.color.0.samples() * self.sample_width()
    }

    fn sample_width(&self) -> usize {
        if self.color.1 == BitDepth::Sixteen { 2 } else { 1 }
    }
}

/// Compares the pixels of two images of one size and colour type.
fn compare_pixels(recorded: &Image, made: &Image, steps: f64, tally: &mut Tally) {
    tally.expect(recorded.count());
    let (width, sample) = (recorded.pixel_width(), recorded.sample_width());
    let pixels = recorded.samples.chunks_exact(width).zip(made.samples.chunks_exact(width));
    for (i, (before, after)) in pixels.enumerate() {
        if before == after {
            continue;
        }
        let channels = |pixel: &[u8]| -> Vec<u16> { pixel.chunks_exact(sample).map(channel).collect() };
        let (before, after) = (channels(before), channels(after));
        let mut is_within = true;
        for (before, after) in before.iter().zip(&after) {
            let apart = before.abs_diff(*after);
            // 65535 / 255
            let unit = if sample == 2 { 257.0 } else { 1.0 };
            let absolute = f64::from(apart) / unit;
            let relative = if apart == 0 { 0.0 } else { f64::from(apart) / f64::from(*before) };
            tally.distance(Largest { absolute, relative, ulps: u64::from(apart) });
            is_within &= absolute <= steps;
        }
        let columns = recorded.size.0 as usize;
        let place = || format!("pixel ({}, {})", i % columns, i / columns);
        tally.values(WHOLE, 1, is_within, || (place(), format!("{before:?}"), format!("{after:?}")));
    }
}

fn channel(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |value, byte| value << 8 | u16::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::testing;
    use png::{Compression, Encoder};

    /// Returns an image of these samples.
    fn image((width, height): (u32, u32), color: (ColorType, BitDepth), samples: &[u8]) -> Vec<u8> {
        encoded((width, height), color, samples, |_| ())
    }

    fn encoded(
        (width, height): (u32, u32),
        (color, depth): (ColorType, BitDepth),
        samples: &[u8],
        change: impl FnOnce(&mut Encoder<'_, &mut Vec<u8>>),
    ) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(&mut bytes, width, height);
        encoder.set_color(color);
        encoder.set_depth(depth);
        change(&mut encoder);
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(samples).unwrap();
        writer.finish().unwrap();
        bytes
    }

    const RGB: (ColorType, BitDepth) = (ColorType::Rgb, BitDepth::Eight);

    fn compared(recorded: &[u8], made: &[u8]) -> Option<String> {
        testing::compared("png", recorded, made, Tolerance::EXACT).unwrap()
    }

    #[test]
    fn compression_and_texts_and_palettes_do_not_count() {
        let samples: Vec<u8> = (0..3 * 20 * 10).map(|i| (i / 7) as u8).collect();
        let recorded = image((20, 10), RGB, &samples);
        let made = encoded((20, 10), RGB, &samples, |encoder| {
            encoder.set_compression(Compression::NoCompression);
            encoder.add_text_chunk("Software".to_owned(), "another".to_owned()).unwrap();
        });
        assert_ne!(recorded, made);
        assert_eq!(compared(&recorded, &made), None);
        let indexed = encoded((2, 1), (ColorType::Indexed, BitDepth::One), &[0b0100_0000], |encoder| {
            encoder.set_palette(vec![1, 2, 3, 4, 5, 6]);
        });
        assert_eq!(compared(&image((2, 1), RGB, &[1, 2, 3, 4, 5, 6]), &indexed), None);
    }

    #[test]
    fn the_first_pixel_that_differs_is_named_with_the_largest_difference() {
        let mut samples = [100; 3 * 4 * 3];
        let recorded = image((4, 3), RGB, &samples);
        samples[3 * 6 + 1] = 104;
        samples[3 * 11] = 90;
        assert_eq!(
            compared(&recorded, &image((4, 3), RGB, &samples)).unwrap(),
            "pixel (2, 1): [100, 100, 100], now [100, 104, 100]; 2 of 12 differ, \
             by at most 1.000e1 (1.000e-1 of the value, 10 ULP)"
        );
    }

    #[test]
    fn another_size_or_colour_type_is_said() {
        let gray = (ColorType::Grayscale, BitDepth::Eight);
        assert_eq!(
            compared(&image((2, 1), RGB, &[0; 6]), &image((1, 3), gray, &[0; 3])).unwrap(),
            "the image: 2 x 1 pixels, Rgb, 8 bits a channel, now 1 x 3 pixels, Grayscale, 8 bits a channel; 3 of 3 differ"
        );
        assert_eq!(
            compared(&image((2, 1), RGB, &[0; 6]), &image((2, 1), gray, &[0; 2])).unwrap(),
            "the image: 2 x 1 pixels, Rgb, 8 bits a channel, now 2 x 1 pixels, Grayscale, 8 bits a channel; 2 of 2 differ"
        );
    }

    #[test]
    fn a_tolerance_is_in_steps_of_a_channel_whatever_its_bits() {
        let deep = (ColorType::Grayscale, BitDepth::Sixteen);
        // 514 / 257 = 2 steps.
        let (recorded, made) = (image((1, 1), deep, &[0x10, 0x00]), image((1, 1), deep, &[0x12, 0x02]));
        let is_within = |absolute| {
            let tolerance = Tolerance { absolute, relative: 1.0 };
            testing::difference("png", &recorded, &made, tolerance).unwrap().unwrap().is_within
        };
        assert!(is_within(2.0) && !is_within(1.99) && !is_within(0.0));
        assert_eq!(
            compared(&recorded, &made).unwrap(),
            "pixel (0, 0): [4096], now [4610]; 1 of 1 differ, by at most 2.000e0 (1.255e-1 of the value, 514 ULP)"
        );
    }

    #[test]
    fn an_animation_is_compared_by_its_bytes() {
        let animation = |last: u8| {
            let mut bytes = Vec::new();
            let mut encoder = Encoder::new(&mut bytes, 1, 1);
            encoder.set_color(ColorType::Grayscale);
            encoder.set_animated(2, 0).unwrap();
            let mut writer = encoder.write_header().unwrap();
            writer.write_image_data(&[7]).unwrap();
            writer.write_image_data(&[last]).unwrap();
            writer.finish().unwrap();
            bytes
        };
        assert_eq!(compared(&animation(1), &animation(1)), None);
        assert!(compared(&animation(1), &animation(2)).unwrap().starts_with("byte "));
    }

    #[test]
    fn a_file_cut_off_anywhere_is_unreadable() {
        let whole = image((5, 5), RGB, &[9; 75]);
        for length in 0..whole.len() {
            let error = testing::compared("png", &whole, &whole[..length], Tolerance::EXACT).unwrap_err();
            assert!(error.to_string().starts_with("the file made anew: not an image that can be read: "), "{error}");
        }
    }
}

//! Colours: one palette for categories, three maps for numbers.
//!
//! The categories are Okabe and Ito's, distinguishable with every common colour blindness. The maps run through a few
//! anchors, interpolated in Oklab, where equal steps look equal.

/// A colour, 8 bits per channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rgb(pub u8, pub u8, pub u8);

impl Rgb {
    /// Text and axes.
    pub const INK: Self = Self(0x22, 0x22, 0x22);
    /// Lines in the background.
    pub const GRID: Self = Self(0xdd, 0xdd, 0xdd);
    /// Marks that recede.
    pub const MUTED: Self = Self(0x9a, 0x9a, 0x9a);
    /// Paper.
    pub const WHITE: Self = Self(0xff, 0xff, 0xff);
    /// Good.
    pub const GREEN: Self = Self(0x00, 0x9e, 0x73);
    /// Doubtful.
    pub const ORANGE: Self = Self(0xe6, 0x9f, 0x00);
    /// Bad.
    pub const RED: Self = Self(0xd5, 0x5e, 0x00);
    /// The first category.
    pub const BLUE: Self = Self(0x00, 0x72, 0xb2);

    /// Returns the colour as `#rrggbb`.
    #[must_use]
    pub fn hex(self) -> String {
        format!("#{:02x}{:02x}{:02x}", self.0, self.1, self.2)
    }
}

/// Returns the colour of category `i`; they repeat after eight.
#[must_use]
pub fn category(i: usize) -> Rgb {
    const CATEGORIES: [Rgb; 8] = [
        Rgb::BLUE,
        Rgb::RED,
        Rgb::GREEN,
        Rgb(0xcc, 0x79, 0xa7),
        Rgb::ORANGE,
        Rgb(0x56, 0xb4, 0xe9),
        Rgb(0x7a, 0x5c, 0x3e),
        Rgb(0x66, 0x66, 0x66),
    ];
    CATEGORIES[i % CATEGORIES.len()]
}

/// A map from [0, 1] to colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColorMap {
    /// White to dark blue.
    Blues,
    /// White to dark red.
    Reds,
    /// Blue over white to red; 0.5 is white.
    Diverging,
}

impl ColorMap {
    fn anchors(self) -> &'static [Rgb] {
        match self {
            Self::Blues => &[
                Rgb::WHITE,
                Rgb(0xcf, 0xe1, 0xf2),
                Rgb(0x7c, 0xb2, 0xdc),
                Rgb(0x2b, 0x7b, 0xba),
                Rgb(0x0a, 0x33, 0x70),
            ],
            Self::Reds => &[
                Rgb::WHITE,
                Rgb(0xfb, 0xd5, 0xc5),
                Rgb(0xf5, 0x91, 0x72),
                Rgb(0xd4, 0x3a, 0x2f),
                Rgb(0x6e, 0x08, 0x14),
            ],
            Self::Diverging => &[
                Rgb(0x0f, 0x3d, 0x7e),
                Rgb(0x4d, 0x94, 0xc9),
                Rgb(0xf7, 0xf7, 0xf7),
                Rgb(0xe0, 0x75, 0x5a),
                Rgb(0x85, 0x11, 0x1e),
            ],
        }
    }

    /// Returns the colour of `position`, clamped to [0, 1]; NaN is grey.
    #[must_use]
    pub fn at(self, position: f64) -> Rgb {
        if position.is_nan() {
            return Rgb(0xbb, 0xbb, 0xbb);
        }
        let anchors = self.anchors();
        let place = position.clamp(0.0, 1.0) * (anchors.len() - 1) as f64;
        let i = (place as usize).min(anchors.len() - 2);
        let (a, b) = (to_oklab(anchors[i]), to_oklab(anchors[i + 1]));
        let t = place - i as f64;
        from_oklab(std::array::from_fn(|k| a[k] + t * (b[k] - a[k])))
    }
}

/// Returns lightness and the two opponent axes (Ottosson 2020).
fn to_oklab(color: Rgb) -> [f64; 3] {
    let linear = |channel: u8| {
        let c = f64::from(channel) / 255.0;
        if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
    };
    let (r, g, b) = (linear(color.0), linear(color.1), linear(color.2));
    let l = (0.412_221_470_8 * r + 0.536_332_536_3 * g + 0.051_445_992_9 * b).cbrt();
    let m = (0.211_903_498_2 * r + 0.680_699_545_1 * g + 0.107_396_956_6 * b).cbrt();
    let s = (0.088_302_461_9 * r + 0.281_718_837_6 * g + 0.629_978_700_5 * b).cbrt();
    [
        0.210_454_255_3 * l + 0.793_617_785_0 * m - 0.004_072_046_8 * s,
        1.977_998_495_1 * l - 2.428_592_205_0 * m + 0.450_593_709_9 * s,
        0.025_904_037_1 * l + 0.782_771_766_2 * m - 0.808_675_766_0 * s,
    ]
}

fn from_oklab([lightness, a, b]: [f64; 3]) -> Rgb {
    let l = (lightness + 0.396_337_777_4 * a + 0.215_803_757_3 * b).powi(3);
    let m = (lightness - 0.105_561_345_8 * a - 0.063_854_172_8 * b).powi(3);
    let s = (lightness - 0.089_484_177_5 * a - 1.291_485_548_0 * b).powi(3);
    let channel = |linear: f64| {
        let c = if linear <= 0.003_130_8 { 12.92 * linear } else { 1.055 * linear.powf(1.0 / 2.4) - 0.055 };
        (c.clamp(0.0, 1.0) * 255.0).round() as u8
    };
    Rgb(
        channel(4.076_741_662_1 * l - 3.307_711_591_3 * m + 0.230_969_929_2 * s),
        channel(-1.268_438_004_6 * l + 2.609_757_401_1 * m - 0.341_319_396_5 * s),
        channel(-0.004_196_086_3 * l - 0.703_418_614_7 * m + 1.707_614_701_0 * s),
    )
}

#[cfg(test)]
mod tests {
    use super::{ColorMap, Rgb, category, from_oklab, to_oklab};

    #[test]
    fn maps_begin_and_end_at_their_anchors_and_darken_on_the_way() {
        for map in [ColorMap::Blues, ColorMap::Reds] {
            assert_eq!(map.at(0.0), Rgb::WHITE);
            assert_eq!(map.at(-3.0), Rgb::WHITE);
            assert_eq!(map.at(2.0), map.at(1.0));
            let lightness: Vec<f64> = (0..=50).map(|i| to_oklab(map.at(f64::from(i) / 50.0))[0]).collect();
            assert!(lightness.windows(2).all(|pair| pair[1] < pair[0]), "{lightness:?}");
        }
        assert_eq!(ColorMap::Diverging.at(0.5), Rgb(0xf7, 0xf7, 0xf7));
    }

    #[test]
    fn oklab_is_undone_by_its_inverse() {
        for color in (0..16).map(category).chain([Rgb::WHITE, Rgb(0, 0, 0), Rgb(1, 2, 3)]) {
            assert_eq!(from_oklab(to_oklab(color)), color);
        }
    }
}

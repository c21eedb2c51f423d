//! The GPU's memory: matrices are shared arrays, parameters are arrays.

use std::sync::Arc;

use cudarc::driver::{DeviceSlice, DriverError};
use spdflow_kernels::Store;
use spdflow_kernels::cuda::{Handle, Launched, Memory, clear, copy, download, memory, upload};

use super::super::backend::{Array, Buffers, Gradient, GradientBuffer};
use super::super::graph::DeviceResult;
use super::{Gpu, or_lost};

impl Gradient<Gpu> {
    /// Returns the memory and what to do with what it holds; all of it must be written if it says so.
    pub(super) fn on_gpu(&mut self) -> DeviceResult<(&mut Memory, Store), Gpu> {
        let store = if self.memory.is_none() { Store::Write } else { Store::Add };
        let held = match self.memory.take() {
            Some(held) => held,
            None => memory(&self.device.handle, self.length)?,
        };
        Ok((self.memory.insert(held), store))
    }

    /// Returns the memory to add to.
    pub(super) fn summed_on_gpu(&mut self) -> DeviceResult<&mut Memory, Gpu> {
        let (memory, store) = self.on_gpu()?;
        if store == Store::Write {
            clear(memory)?;
        }
        Ok(memory)
    }
}

impl Buffers for Gpu {
    type Err = DriverError;
    type Gradient = Memory;
    type View = Arc<Memory>;
    type Buffer = Memory;

    // One kernel after the other: parts would only make each of them smaller.
    const COMPUTES_IN_PARTS: bool = false;

    fn upload(&self, data: Vec<f32>, shape: (usize, usize)) -> DeviceResult<Array<Self>, Self> {
        assert_eq!(data.len(), shape.0 * shape.1, "data of a matrix {shape:?}");
        Ok(Array { data: Arc::new(upload(&self.handle, &data)?), shape })
    }

    fn download(view: &Self::View) -> Vec<f32> {
        or_lost(download(view))
    }

    fn buffer(&self, data: Vec<f32>) -> DeviceResult<Self::Buffer, Self> {
        upload(&self.handle, &data)
    }

    fn read_buffer(&self, buffer: &Self::Buffer) -> Vec<f32> {
        or_lost(download(buffer))
    }

    fn array_of_buffer(&self, buffer: &Self::Buffer, shape: (usize, usize)) -> DeviceResult<Array<Self>, Self> {
        written(&buffer.device(), shape, |out| copy(buffer, out))
    }

    fn read_gradient(gradient: &GradientBuffer<Self>) -> Vec<f32> {
        or_lost(download(gradient))
    }

    fn length(gradient: &Memory) -> usize {
        gradient.len()
    }

    fn zeros(&self, length: usize) -> DeviceResult<Memory, Self> {
        let mut zeros = memory(&self.handle, length)?;
        clear(&mut zeros)?;
        Ok(zeros)
    }

    fn gradient(&self, data: Vec<f32>) -> DeviceResult<Memory, Self> {
        upload(&self.handle, &data)
    }

    fn recycle_gradient(gradient: Memory) {
        drop(gradient);
    }
}

/// Returns the matrix that `fill` writes; it must write every element.
pub(super) fn written(
    device: &Handle,
    shape: (usize, usize),
    fill: impl FnOnce(&mut Memory) -> Launched,
) -> DeviceResult<Array<Gpu>, Gpu> {
    let mut out = memory(device, shape.0 * shape.1)?;
    fill(&mut out)?;
    Ok(Array { data: Arc::new(out), shape })
}

/// Returns the matrix that `fill` adds to zeros.
pub(super) fn summed(
    device: &Handle,
    shape: (usize, usize),
    fill: impl FnOnce(&mut Memory) -> Launched,
) -> DeviceResult<Array<Gpu>, Gpu> {
    written(device, shape, |out| {
        clear(out)?;
        fill(out)
    })
}

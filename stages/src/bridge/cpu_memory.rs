//! The processor's memory: views are shared copies of a tensor's data, parameters are plain vectors.

use std::rc::Rc;

use dfdx::prelude::{Cpu, HasShape, Shape, TensorFromVec};

use super::backend::{Array, Buffers, GradientBuffer};
use super::graph::DeviceResult;
use super::pool::Pooled;

impl Buffers for Cpu {
    type View = Rc<Pooled>;
    type Buffer = Vec<f32>;

    fn view(array: &Array<Self>) -> Self::View {
        // Every array here was uploaded whole, so it is contiguous and `copy_into` copies in row-major order.
        Rc::new(Pooled::filled_by(array.shape().num_elements(), |data| array.copy_into(data)))
    }

    fn upload(&self, data: Vec<f32>, shape: (usize, usize)) -> DeviceResult<Array<Self>, Self> {
        assert_eq!(data.len(), shape.0 * shape.1, "data of a matrix {shape:?}");
        self.try_tensor_from_vec(data, shape)
    }

    fn download(view: &Self::View) -> Vec<f32> {
        view.to_vec()
    }

    fn buffer(&self, data: Vec<f32>) -> DeviceResult<Self::Buffer, Self> {
        Ok(data)
    }

    fn read_buffer(&self, buffer: &Self::Buffer) -> Vec<f32> {
        buffer.clone()
    }

    fn array_of_buffer(&self, buffer: &Self::Buffer, shape: (usize, usize)) -> DeviceResult<Array<Self>, Self> {
        self.upload(buffer.clone(), shape)
    }

    fn read_gradient(gradient: &GradientBuffer<Self>) -> Vec<f32> {
        gradient.to_vec()
    }
}

"""Maps against those of other libraries."""

import pytest
import torch
from comparing import TARGETS, close
from torch import nn


class TestPeers:
    def test_captums_gradcam(self, seen, resnet, images):
        from captum.attr import LayerGradCam

        for layer in ("layer1", "layer4"):
            peer = LayerGradCam(resnet, getattr(resnet, layer))
            theirs = peer.attribute(images, target=torch.tensor(TARGETS))[:, 0]
            close(seen.map("gradcam", layer, signed=True), theirs)

    def test_captums_guided_backpropagation(self, seen, resnet, images):
        from captum.attr import GuidedBackprop

        ours = seen.attribution("guided_backprop")
        for module in resnet.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False  # captum's hooks fail on in-place ReLUs
        with pytest.warns(UserWarning, match="hooks"):
            theirs = GuidedBackprop(resnet).attribute(
                images.clone().requires_grad_(), target=torch.tensor(TARGETS)
            )
        close(ours, theirs)

    def test_pytorch_grad_cams_gradcam_and_xgradcam(self, seen, resnet, images):
        import pytorch_grad_cam as peers
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        targets = [ClassifierOutputTarget(c) for c in TARGETS]
        for method, peer in (("gradcam", peers.GradCAM), ("xgradcam", peers.XGradCAM)):
            with peer(resnet, [resnet.layer1]) as cam:
                a, g = seen.activations["layer1"].numpy(), seen.gradients["layer1"].numpy()
                theirs = cam.get_cam_image(images, None, None, a, g, False)
                cam(images, targets)
                theirs_own = cam.compute_cam_per_layer(images, targets, False)[0][:, 0]
            del targets[3:]
            close(seen.map(method, "layer1", signed=True), theirs)
            # Its pipeline ends in a ReLU, its own scaling to [0, 1] and its own resampling.
            ours = seen.map(method, "layer1", size=64)
            ours = ours - ours.amin((1, 2), keepdim=True)
            ours = ours / ours.amax((1, 2), keepdim=True)
            assert abs(ours.numpy() - theirs_own).mean() < 0.02

    def test_captums_integrated_gradients(self, seen, resnet, images):
        from captum.attr import IntegratedGradients

        theirs = IntegratedGradients(resnet).attribute(
            images[:1], target=TARGETS[0], n_steps=8, method="riemann_middle"
        )
        ours = seen.attribution("integrated_gradients", steps=8)[:1]
        close(ours, theirs, 1e-4)

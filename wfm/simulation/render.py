"""Pictures of a world: colour frames, and how many pixels of each object they show.

One renderer for the life of a process (and thread), for its OpenGL context costs as much as hundreds of frames. Without
shadows and multisampling a 128 x 128 frame takes about half a millisecond on one core.
"""

import atexit
import threading

import numpy as np

from wfm.simulation.camera import FOV_Y_DEGREES, Pose
from wfm.simulation.scene import Scene, floor_texture
from wfm.simulation.world import TEXTURE_PIXELS, World

_kept = threading.local()


class Renderer:
    """Draws one `World` from any pose."""

    def __init__(self, world: World, size: int) -> None:
        self.world, self.size = world, size
        mujoco = self._mujoco = world.mujoco
        self._gl = mujoco.GLContext(size, size)
        self._gl.make_current()
        self._context = mujoco.MjrContext(world.model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(world.model, 64)
        self._options, self._camera = mujoco.MjvOption(), mujoco.MjvCamera()
        self._rectangle = mujoco.MjrRect(0, 0, size, size)
        self._pixels = np.empty((size, size, 3), dtype=np.uint8)
        self._flag(mujoco.mjtRndFlag.mjRND_SHADOW, False)
        self._flag(mujoco.mjtRndFlag.mjRND_REFLECTION, False)

    def load(self, scene: Scene) -> None:
        """Put the scene's floor on the graphics side; the world must have loaded the scene already."""
        self._gl.make_current()
        texture = self.world.model.texture("floor").id
        start = int(self.world.model.tex_adr[texture])
        picture = floor_texture(scene, TEXTURE_PIXELS).reshape(-1)
        self.world.model.tex_data[start : start + picture.size] = picture
        self._mujoco.mjr_uploadTexture(self.world.model, self._context, texture)

    def update(self) -> None:
        """Take over the world's present state; once a frame, for all views."""
        self._mujoco.mjv_updateScene(
            self.world.model,
            self.world.data,
            self._options,
            None,
            self._camera,
            self._mujoco.mjtCatBit.mjCAT_ALL,
            self._scene,
        )

    def frame(self, pose: Pose) -> tuple[np.ndarray, np.ndarray]:
        """Picture uint8 [size, size, 3] and visible pixels of each slot, int64 [MAX_OBJECTS], from a second pass."""
        mujoco = self._mujoco
        self._look_from(pose)
        mujoco.mjr_render(self._rectangle, self._scene, self._context)
        mujoco.mjr_readPixels(self._pixels, None, self._rectangle, self._context)
        picture = self._pixels[::-1].copy()  # OpenGL's rows run from the bottom
        self._flag(mujoco.mjtRndFlag.mjRND_SEGMENT, True)
        self._flag(mujoco.mjtRndFlag.mjRND_IDCOLOR, True)
        mujoco.mjr_render(self._rectangle, self._scene, self._context)
        mujoco.mjr_readPixels(self._pixels, None, self._rectangle, self._context)
        self._flag(mujoco.mjtRndFlag.mjRND_SEGMENT, False)
        self._flag(mujoco.mjtRndFlag.mjRND_IDCOLOR, False)
        counts = np.bincount(self._pixels[..., 0].reshape(-1), minlength=256)
        return picture, self._count(counts)

    def close(self) -> None:
        """Free the OpenGL context; while the interpreter shuts down it would be too late."""
        self._context.free()
        self._gl.free()

    def _count(self, counts: np.ndarray) -> np.ndarray:
        """Pixels of each slot; a geom's identity colour is its place in the scene plus one, below 256 here."""
        seen = np.zeros(len(self.world.geoms), dtype=np.int64)
        geom_kind = int(self._mujoco.mjtObj.mjOBJ_GEOM)
        for i in range(self._scene.ngeom):
            geom = self._scene.geoms[i]
            if geom.objtype == geom_kind and geom.objid in self.world.geoms and geom.segid >= 0:
                seen[self.world.geoms.index(geom.objid)] += counts[geom.segid + 1]
        return seen

    def _look_from(self, pose: Pose) -> None:
        near = 0.5
        reach = near * np.tan(np.radians(FOV_Y_DEGREES) / 2)
        for camera in self._scene.camera:
            camera.pos = pose.position
            camera.forward = -pose.rotation[:, 2]
            camera.up = pose.rotation[:, 1]
            camera.frustum_near, camera.frustum_far = near, 40.0
            camera.frustum_bottom, camera.frustum_top = -reach, reach
            camera.frustum_center, camera.frustum_width = 0.0, 0.0  # width 0: from the picture's aspect

    def _flag(self, flag: int, on: bool) -> None:
        self._scene.flags[int(flag)] = on


def renderer_for(size: int, fps: int) -> Renderer:
    """This thread's renderer, made on first use and again only when size or rate change."""
    if getattr(_kept, "key", None) != (size, fps):
        if getattr(_kept, "renderer", None) is not None:
            _kept.renderer.close()
        _kept.key = None
        _kept.renderer = Renderer(World(size, fps), size)
        atexit.register(_kept.renderer.close)
        _kept.key = (size, fps)
    renderer: Renderer = _kept.renderer
    return renderer

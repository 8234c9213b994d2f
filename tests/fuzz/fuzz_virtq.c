/*
 * The split ring, the transport and the life cycle, with the echo device behind them.
 *
 * #covers: src/virtio/virtq_split.c src/virtio/virtio.c src/virtio/state.c
 * #covers: src/virtio/transport/pci.c
 */
#include "fuzz/vfuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	vfuzz_run(&vfuzz_echo_split, data, len);
	return 0;
}

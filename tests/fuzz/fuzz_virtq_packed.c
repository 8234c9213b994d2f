/*
 * The packed ring, the transport and the life cycle, with the echo device behind them.
 *
 * #covers: src/virtio/virtq_packed.c src/virtio/state.c
 */
#include "fuzz/vfuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	vfuzz_run(&vfuzz_echo_packed, data, len);
	return 0;
}

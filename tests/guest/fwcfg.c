/*
 * What firmware is told about booting: the boot menu's key and the files `etc/boot-menu-wait` and
 * `bootorder` of fw_cfg, read byte by byte through the ports.
 */
#include "guest.h"
#include "spec/fw_cfg.h"
#include "spec/platform_x86.h"

void guest_irq(unsigned vector)
{
}

static void select(uint16_t key)
{
	outw(PLAT_FW_CFG_PORT + FW_CFG_SELECTOR_OFF, key);
}

/* Big-endian, as the directory is. */
static uint32_t number(unsigned bytes)
{
	uint32_t v = 0;

	while (bytes--) {
		v = v << 8 | inb(PLAT_FW_CFG_PORT + FW_CFG_DATA_OFF);
	}
	return v;
}

/* Selects a file: its size, 0 if there is none. */
static uint32_t file(const char *name)
{
	uint32_t count, found_size = 0;
	uint16_t found_key = 0;

	select(FW_CFG_FILE_DIR);
	count = number(4);
	for (uint32_t i = 0; i < count; i++) {
		uint32_t size = number(4);
		uint16_t key = (uint16_t)number(2);
		bool same = true, end = false;

		number(2);
		for (unsigned k = 0; k < FW_CFG_MAX_FILE_PATH; k++) {
			char c = (char)number(1);

			same = same && (end || c == name[k]);
			end = end || !c;
		}
		if (same) {
			found_size = size;
			found_key = key;
		}
	}
	if (found_size) {
		select(found_key);
	}
	return found_size;
}

int main(void)
{
	uint32_t size;
	uint8_t low;

	select(FW_CFG_BOOT_MENU);
	low = (uint8_t)number(1);
	put_num("menu", low | number(1) << 8);
	size = file("etc/boot-menu-wait");
	put_num("wait-size", size);
	if (size == 2) {
		low = (uint8_t)number(1);
		put_num("wait-ms", low | number(1) << 8);
	}
	size = file("bootorder");
	put_num("order-size", size);
	put("\n");
	for (uint32_t i = 0; i < size; i++) {
		char c[2] = {(char)number(1), 0};

		put(c);
	}
	put("PASS\n");
	guest_reset();
}

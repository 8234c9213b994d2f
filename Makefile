# A thin front: meson builds, scripts/ do the work. Each goal first installs what Debian packages
# it lacks (scripts/deps, as root or through sudo; it says what and why).
#
#   make                     build/nemu, build/nemu-img
#   make ARCH=aarch64        build-aarch64/nemu, on an x86-64 machine
#   make demo                boot a Debian guest with it; DEMO_CMD='…' says what to run in it;
#                            with ARCH=aarch64 an Arm guest on an emulated Arm host
#   make check               every test, about half an hour on two cores; STAGES='unit lab' for some
#   make soak                the same and what takes longer
#   make bench               NEMU beside QEMU, printed as ratios; ARCH=aarch64 for those on Arm
#   make fuzz TARGET=… TIME=SECONDS
#   make fuzz-coverage       what the corpora reach of the files that the targets are for
#   make asan | tsan         build-asan/nemu, build-tsan/nemu
#   make lint                formatting of what is not committed yet; BASE=main: since then
#   make tidy                clang-tidy over src/; slow
#   make install             to DESTDIR and PREFIX
#   make clean               remove what was built

PREFIX ?= /usr/local
STAGES ?=
TIME ?= 60
BASE ?= HEAD
ARCH ?=

# another architecture than this machine's has a build directory of its own
CROSS = $(if $(filter-out $(shell uname -m),$(ARCH)),$(ARCH))

all:
	@scripts/deps build $(if $(CROSS),arm64)
	@scripts/check --build build$(if $(CROSS),-$(CROSS))

asan tsan:
	@scripts/deps build
	@scripts/check --build build-$@

demo: all
	@scripts/deps lab image $(if $(CROSS),arm64)
	@scripts/demo$(if $(CROSS),-arm64)

check:
	@scripts/deps build lab image check arm64
	@scripts/check $(STAGES)

soak:
	@scripts/deps build lab image check arm64
	@scripts/check --soak $(STAGES)

bench: all
	@scripts/deps lab image bench $(if $(CROSS),arm64)
	@$(if $(CROSS),scripts/arm64-root lab && scripts/mkimage-arm64 && tests/bench/arm64.py,tests/bench/img && tests/bench/run)

fuzz:
	@scripts/deps build
	@[ -n "$(TARGET)" ] || { echo "make fuzz: give TARGET=, a file of tests/fuzz without fuzz_" >&2; exit 1; }
	@scripts/check --fuzz "$(TARGET)" "$(TIME)"

fuzz-coverage:
	@scripts/deps build
	@scripts/check --fuzz-coverage $(TARGET)

install: all
	@meson configure build -Dprefix="$(PREFIX)"
	@meson install -C build $(if $(DESTDIR),--destdir "$(abspath $(DESTDIR))")

lint:
	@scripts/deps build
	@tools/check-layers
	@scripts/lint $(BASE)

tidy: all
	@run-clang-tidy -quiet -p build '$(CURDIR)/src/.*'

clean:
	rm -rf build build-clang build-hooks build-asan build-tsan build-fuzz build-fuzz-cov build-aarch64 build-aarch64-deps

.PHONY: all asan tsan demo check soak bench fuzz fuzz-coverage install lint tidy clean

# Builds and installs pypnm-sizing, for image builders and distributions. The packages are created with `install` as well.
#
#   make build                       builds both programs statically (packaging/static); ARCHITECTURE=aarch64 cross-builds
#   make install DESTDIR=/image      installs into an image; systemd's directories are those of pkg-config, if it has any
#   make uninstall                   removes the installed files, except edited files in /etc
#
# `install` neither reloads systemd nor enables anything, which is up to the package or the image.

DESTDIR ?=
PREFIX ?= /usr
# As printed by uname -m; empty: this machine's.
ARCHITECTURE ?=
# The two programs to install, from any build.
PROGRAMS ?= target/static/bin$(addprefix -,$(ARCHITECTURE))

pc = $(or $(shell pkg-config --variable=$(1) systemd 2>/dev/null),$(2))

bindir ?= $(PREFIX)/bin
datadir ?= $(PREFIX)/share
mandir ?= $(datadir)/man
docdir ?= $(datadir)/doc/pypnm-sizing
sysconfdir ?= /etc
generatordir ?= $(call pc,systemdsystemgeneratordir,/usr/lib/systemd/system-generators)
unitdir ?= $(call pc,systemdsystemunitdir,/usr/lib/systemd/system)
sysusersdir ?= $(call pc,sysusersdir,/usr/lib/sysusers.d)
handoverdir ?= $(PREFIX)/lib/pypnm-sizing
presetdir ?= $(call pc,systemdsystempresetdir,/usr/lib/systemd/system-preset)
bashcompletiondir ?= $(datadir)/bash-completion/completions
zshcompletiondir ?= $(datadir)/zsh/vendor-completions
fishcompletiondir ?= $(datadir)/fish/vendor_completions.d

MAN1 := $(wildcard man/*.1)
MAN5 := $(wildcard man/*.5)
MAN7 := $(wildcard man/*.7)
MAN8 := $(wildcard man/*.8)
HANDOVER := $(wildcard handover/pypnm_handover/*.py)
UNITS := $(wildcard systemd/*.service systemd/*.timer)
MONITORING := $(wildcard packaging/monitoring/*)
CONFIGURATION := sizing.conf pypnm.env pypnm-cmts.env
DOCS := README.md CHANGELOG.md
PAGES := json.md monitoring.md

INSTALL ?= install
PUT = $(INSTALL) -D -p -m 0644

.PHONY: all build install uninstall
all: build

build:
	packaging/static $(addprefix --architecture ,$(ARCHITECTURE)) $(PROGRAMS)

install:
	@# The generator's drop-in calls the helper by its path.
	@grep -q -a -F '$(bindir)/pypnm-sizing' $(PROGRAMS)/pypnm-sizing-generator || \
	    { echo "the generator calls /usr/bin/pypnm-sizing: install with PREFIX=/usr" >&2; exit 1; }
	@for file in man/pypnm-sizing.1 man/pypnm-sizing-generator.8 man/sizing.conf.5 completions/pypnm-sizing.bash \
	    completions/_pypnm-sizing completions/pypnm-sizing.fish $(DOCS); do \
	    [ -e $$file ] || { echo "$$file is missing: this is not a complete source tree" >&2; exit 1; }; \
	done
	$(INSTALL) -D -m 0755 $(PROGRAMS)/pypnm-sizing $(DESTDIR)$(bindir)/pypnm-sizing
	$(INSTALL) -D -m 0755 $(PROGRAMS)/pypnm-sizing-generator $(DESTDIR)$(generatordir)/pypnm-sizing-generator
	@# The launcher of the packaged units; no bytecode: PyPNM's Python is not known here, and compiling it takes 20 ms.
	$(INSTALL) -D -p -m 0755 handover/handover $(DESTDIR)$(handoverdir)/handover
	for file in $(HANDOVER); do $(PUT) $$file $(DESTDIR)$(handoverdir)/pypnm_handover/$${file##*/} || exit 1; done
	for file in $(notdir $(UNITS)); do $(PUT) systemd/$$file $(DESTDIR)$(unitdir)/$$file || exit 1; done
	$(PUT) systemd/pypnm-sizing.sysusers $(DESTDIR)$(sysusersdir)/pypnm-sizing.conf
	$(PUT) systemd/pypnm-sizing.preset $(DESTDIR)$(presetdir)/50-pypnm-sizing.preset
	@# The operator's copy wins, as with a package.
	for file in $(CONFIGURATION); do \
	    [ -e $(DESTDIR)$(sysconfdir)/pypnm/$$file ] || \
	        $(PUT) packaging/$$file $(DESTDIR)$(sysconfdir)/pypnm/$$file || exit 1; done
	for file in $(MAN1); do $(PUT) $$file $(DESTDIR)$(mandir)/man1/$${file##*/} || exit 1; done
	for file in $(MAN5); do $(PUT) $$file $(DESTDIR)$(mandir)/man5/$${file##*/} || exit 1; done
	for file in $(MAN7); do $(PUT) $$file $(DESTDIR)$(mandir)/man7/$${file##*/} || exit 1; done
	for file in $(MAN8); do $(PUT) $$file $(DESTDIR)$(mandir)/man8/$${file##*/} || exit 1; done
	$(PUT) completions/pypnm-sizing.bash $(DESTDIR)$(bashcompletiondir)/pypnm-sizing
	$(PUT) completions/_pypnm-sizing $(DESTDIR)$(zshcompletiondir)/_pypnm-sizing
	$(PUT) completions/pypnm-sizing.fish $(DESTDIR)$(fishcompletiondir)/pypnm-sizing.fish
	for file in $(DOCS) LICENSE; do $(PUT) $$file $(DESTDIR)$(docdir)/$$file || exit 1; done
	for file in $(CONFIGURATION); do $(PUT) packaging/$$file $(DESTDIR)$(docdir)/examples/$$file || exit 1; done
	for file in $(MONITORING); do $(PUT) $$file $(DESTDIR)$(docdir)/monitoring/$${file##*/} || exit 1; done
	for page in $(PAGES); do $(PUT) docs/$$page $(DESTDIR)$(docdir)/$$page || exit 1; done

uninstall:
	rm -f $(DESTDIR)$(bindir)/pypnm-sizing $(DESTDIR)$(generatordir)/pypnm-sizing-generator \
	    $(foreach unit,$(notdir $(UNITS)),$(DESTDIR)$(unitdir)/$(unit)) $(DESTDIR)$(sysusersdir)/pypnm-sizing.conf \
	    $(DESTDIR)$(presetdir)/50-pypnm-sizing.preset \
	    $(foreach page,$(notdir $(MAN1)),$(DESTDIR)$(mandir)/man1/$(page)) \
	    $(foreach page,$(notdir $(MAN5)),$(DESTDIR)$(mandir)/man5/$(page)) \
	    $(foreach page,$(notdir $(MAN7)),$(DESTDIR)$(mandir)/man7/$(page)) \
	    $(foreach page,$(notdir $(MAN8)),$(DESTDIR)$(mandir)/man8/$(page)) \
	    $(DESTDIR)$(bashcompletiondir)/pypnm-sizing $(DESTDIR)$(zshcompletiondir)/_pypnm-sizing \
	    $(DESTDIR)$(fishcompletiondir)/pypnm-sizing.fish
	for file in $(CONFIGURATION); do \
	    ! cmp -s packaging/$$file $(DESTDIR)$(sysconfdir)/pypnm/$$file || rm $(DESTDIR)$(sysconfdir)/pypnm/$$file; done
	[ ! -d $(DESTDIR)$(sysconfdir)/pypnm ] || rmdir --ignore-fail-on-non-empty $(DESTDIR)$(sysconfdir)/pypnm
	rm -rf $(DESTDIR)$(docdir) $(DESTDIR)$(handoverdir)

"""What a shell reads so that it asks the program what to complete: ``eval "$(dstrun -sc install=bash)"``."""

from __future__ import annotations

BASH = r"""_dstrun() {
    local line="${COMP_LINE:0:COMP_POINT}" answer only
    local word="${line##* }"
    COMPREPLY=()
    while IFS= read -r answer; do
        [[ -z $answer ]] || COMPREPLY+=("$answer")
    done < <(COMP_LINE="$line" "$1" -sc query=bash 2> /dev/null)
    if [[ ${#COMPREPLY[@]} == 1 && $COMPREPLY != *=* && $COMPREPLY != *[./] ]]; then only=" "; fi
    COMPREPLY=("${COMPREPLY[@]#"${word%"$2"}"}")
    COMPREPLY=("${COMPREPLY[@]/%/$only}")
}
complete -o nospace -o default -F _dstrun dstrun"""
"""Readline holds a word to begin after ``=`` and ``:`` (``COMP_WORDBREAKS``, which other programs need as it is): what
stands before is taken off each answer. Answers are read line by line, as a shell would take ``*`` in one for files."""

ZSH = r"""(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -i; }
_dstrun() {
    local -a found goes_on
    found=(${(f)"$(COMP_LINE="${(j: :)words[1,CURRENT-1]} $IPREFIX$PREFIX" ${~words[1]} -sc query=zsh 2> /dev/null)"})
    goes_on=(${(M)found:#*(=*|.|/)})
    found=(${found:#*(=*|.|/)})
    (( $#found + $#goes_on )) || { _files; return; }
    compadd -- $found
    compadd -S '' -- $goes_on
}
compdef _dstrun dstrun"""

FISH = r"""function _dstrun
    set -lx COMP_LINE (string trim --left -- (commandline -cp))
    set -l words (commandline -opc)
    set -l found ($words[1] -sc query=fish 2> /dev/null | string match -rv '^$')
    if set -q found[1]
        printf '%s\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c dstrun -f -a '(_dstrun)'"""

SCRIPTS = {
    "install=bash": BASH,
    "install=zsh": ZSH,
    "install=fish": FISH,
    "uninstall=bash": "complete -r dstrun; unset -f _dstrun",
    "uninstall=zsh": "compdef -d dstrun; unfunction _dstrun",
    "uninstall=fish": "complete -e -c dstrun; functions -e _dstrun",
}
"""By the word after ``-sc``."""

"""The collector: takes down what the exchange says.

This package is one work with cryptofeed 3 and licensed AGPL-3.0-or-later; see LICENSE beside this file.

This product includes software developed by Bryant Moscon (https://github.com/bmoscon/cryptofeed)
"""

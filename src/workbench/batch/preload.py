"""What the fork server imports and prepares for all workers, without a thread or a socket."""

import gc

from workbench._extras import need
from workbench.batch import html_page
from workbench.batch.worker import import_engines

import_engines()
need("workbench.batch.kernel", extra="batch")
# It looks through the entry points of all that is installed.
need("jupyter_client.provisioning.factory", extra="batch").KernelProvisionerFactory.instance()
nbformat = need("nbformat", extra="batch")
page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")])
html_page.to_html(page, "", ".")
gc.collect()
gc.freeze()  # shared pages stay shared
